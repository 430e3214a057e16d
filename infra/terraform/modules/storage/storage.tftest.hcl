mock_provider "google" {}

variables {
  project  = "example-project"
  name     = "aidetect"
  location = "europe-west1"
  grants = [
    { bucket = "models", role = "roles/storage.objectViewer", name = "serving", member = "serviceAccount:serving@example.test" },
  ]
}

run "buckets_are_private_and_only_runs_expire" {
  command = plan

  assert {
    condition     = alltrue([for bucket in google_storage_bucket.this : bucket.public_access_prevention == "enforced" && bucket.uniform_bucket_level_access])
    error_message = "a bucket could be made public"
  }
  assert {
    condition     = { for use, bucket in google_storage_bucket.this : use => length(bucket.lifecycle_rule) } == { data = 2, models = 2, pipelines = 3, records = 2 }
    error_message = "only the artifacts of runs expire by age"
  }
  assert {
    condition     = length(google_storage_bucket_iam_member.this) == 1
    error_message = "a grant is missing"
  }
}

run "an_administrator_is_refused" {
  command = plan
  variables {
    grants = [{ bucket = "models", role = "roles/storage.admin", name = "x", member = "user:x@example.test" }]
  }
  expect_failures = [var.grants]
}

run "too_short_a_retention_is_refused" {
  command = plan
  variables {
    artifact_retention_days = 1
  }
  expect_failures = [var.artifact_retention_days]
}
