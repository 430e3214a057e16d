mock_provider "google" {}

variables {
  project  = "example-project"
  name     = "aidetect"
  location = "europe-west1"
  readers  = { serving = "serviceAccount:serving@example.test" }
  writers  = { build = "serviceAccount:build@example.test" }
}

run "builds_expire_and_releases_stay" {
  command = plan

  assert {
    condition     = !google_artifact_registry_repository.images.docker_config[0].immutable_tags && !google_artifact_registry_repository.images.cleanup_policy_dry_run
    error_message = "nothing would ever be deleted"
  }
  assert {
    condition     = { for policy in google_artifact_registry_repository.images.cleanup_policies : policy.id => policy.condition[0].older_than if policy.action == "DELETE" } == { delete-builds = "2592000s", delete-releases = "31536000s", delete-untagged = "2592000s" }
    error_message = "builds expire after a month, releases after a year"
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
