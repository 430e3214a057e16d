output "uri" {
  description = "Address of the server (tracking.uri, GitHub variable MLFLOW_TRACKING_URI); empty where none runs."
  value       = try(google_cloud_run_v2_service.this[0].uri, "")
}
