mock_provider "google" {}

variables {
  project  = "example-project"
  name     = "aidetect"
  location = "europe-west1"
  readers  = { serving = "serviceAccount:serving@example.test" }
  writers  = { build = "serviceAccount:build@example.test" }
}

run "tags_never_move" {
  command = plan

  assert {
    condition     = google_artifact_registry_repository.images.docker_config[0].immutable_tags
    error_message = "a tag could be moved"
  }
  assert {
    condition     = [for grant in google_artifact_registry_repository_iam_member.this : grant.role if endswith(grant.member, "serving@example.test")] == ["roles/artifactregistry.reader"]
    error_message = "the service may only pull"
  }
}

run "keeping_too_few_versions_is_refused" {
  command = plan
  variables {
    keep_versions = 1
  }
  expect_failures = [var.keep_versions]
}
