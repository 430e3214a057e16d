output "ids" {
  description = "Secret ids by secret; each has a version and its readers may read it."
  value       = { for name, secret in google_secret_manager_secret.this : name => secret.secret_id }

  depends_on = [google_secret_manager_secret_version.first, google_secret_manager_secret_iam_member.reader]
}
