output "service" {
  description = "Name of the service."
  value       = google_cloud_run_v2_service.this.name
}

output "url" {
  description = "Address of the service (GitHub variable SERVICE_URL)."
  value       = google_cloud_run_v2_service.this.uri
}
