output "service_url" {
  description = "Address of the service."
  value       = module.platform.service_url
}

output "github_variables" {
  description = "Variables that the workflows read."
  value       = module.platform.github_variables
}
