output "ids" {
  description = "Secret ids by secret."
  value       = { for name, secret in google_secret_manager_secret.this : name => secret.secret_id }
}
