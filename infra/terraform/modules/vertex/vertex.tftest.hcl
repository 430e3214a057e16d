mock_provider "google" {}

variables {
  project    = "example-project"
  name       = "aidetect"
  region     = "europe-west1"
  submitters = { train = "serviceAccount:train@example.test" }
}

run "submitting_needs_to_see_the_project_only" {
  command = plan

  assert {
    condition     = google_project_iam_custom_role.preflight.permissions == toset(["resourcemanager.projects.get"])
    error_message = "the preflight role grew"
  }
  assert {
    condition     = length(google_vertex_ai_endpoint.this) == 0
    error_message = "endpoints are made only when asked for"
  }
}

run "one_endpoint_alone_is_refused" {
  command = plan
  variables {
    endpoints = { users = "101" }
  }
  expect_failures = [var.endpoints]
}
