output "host" {
  description = "Host that Docker signs in to (GitHub variable IMAGE_REGISTRY)."
  value       = "${var.location}-docker.pkg.dev"
}

output "repository" {
  description = "HOST/PROJECT/REPOSITORY (GitHub variable IMAGE_REPOSITORY)."
  value       = "${var.location}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}
