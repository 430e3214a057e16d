# Images are addressed by digest, so what a run or a revision names is what it gets, whatever becomes of its tag. Tags say what an
# image is for: `release-...` was built from the main branch, `build-...` from anything else. Immutable tags would forbid deleting
# what bears one, which is every image.
resource "google_artifact_registry_repository" "images" {
  project                = var.project
  location               = var.location
  repository_id          = var.name
  description            = "Images of the AI Product Photo Detector"
  format                 = "DOCKER"
  labels                 = var.labels
  cleanup_policy_dry_run = false

  docker_config {
    immutable_tags = false
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
    id     = "delete-builds"
    action = "DELETE"
    condition {
      tag_state    = "TAGGED"
      tag_prefixes = ["build-"]
      older_than   = "${var.build_days * 24 * 3600}s"
    }
  }

  cleanup_policies {
    id     = "delete-untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "${var.build_days * 24 * 3600}s"
    }
  }

  cleanup_policies {
    id     = "delete-releases"
    action = "DELETE"
    condition {
      tag_state    = "TAGGED"
      tag_prefixes = ["release-"]
      older_than   = "${var.release_days * 24 * 3600}s"
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
