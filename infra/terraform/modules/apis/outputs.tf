output "enabled" {
  description = "The APIs that are enabled."
  value       = sort([for service in concat(values(google_project_service.first), values(google_project_service.this)) : service.service])
}
