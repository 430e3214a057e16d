output "channel" {
  description = "Notification channel for alerts that are a reason to retrain."
  value       = google_monitoring_notification_channel.this.name
}

output "github_secret" {
  description = "Secret whose first version is a token of GitHub; `aidetect bootstrap` writes it."
  value       = google_secret_manager_secret.github.secret_id
}

output "bucket" {
  description = "Bucket of labels and drift windows."
  value       = google_storage_bucket.evidence.name
}
