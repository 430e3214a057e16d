# Images are addressed by digest and their tags never move, so what a run or a revision names is what it gets.
resource "google_artifact_registry_repository" "images" {
  project                = var.project
  location               = var.location
  repository_id          = var.name
  description            = "Images of the AI Product Photo Detector"
  format                 = "DOCKER"
  labels                 = var.labels
  cleanup_policy_dry_run = false

  docker_config {
    immutable_tags = true
  }

  vulnerability_scanning_config {
    enablement_config = "INHERITED"
  }

  cleanup_policies {
    id     = "keep-recent"
    action = "KEEP"
    most_recent_versions {
      keep_count = var.keep_versions
    }
  }

  cleanup_policies {
    id     = "delete-old"
    action = "DELETE"
    condition {
      older_than = "${var.retention_days * 24 * 3600}s"
    }
  }
}

resource "google_artifact_registry_repository_iam_member" "this" {
  for_each = merge(
    { for name, member in var.readers : "reader ${name}" => { role = "roles/artifactregistry.reader", member = member } },
    { for name, member in var.writers : "writer ${name}" => { role = "roles/artifactregistry.writer", member = member } },
  )

  project    = var.project
  location   = google_artifact_registry_repository.images.location
  repository = google_artifact_registry_repository.images.name
  role       = each.value.role
  member     = each.value.member
}
