output "emails" {
  description = "Service accounts' addresses by role: serving, sandbox, pipeline, build, deploy, train, preview."
  value       = { for role, account in google_service_account.this : role => account.email }
}

output "members" {
  description = "The same accounts as IAM members."
  value       = { for role, account in google_service_account.this : role => account.member }
}

output "workload_identity_provider" {
  description = "Resource name of the provider (GitHub variable GCP_WORKLOAD_IDENTITY_PROVIDER)."
  value       = google_iam_workload_identity_pool_provider.github.name
}
