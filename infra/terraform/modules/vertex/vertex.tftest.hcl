mock_provider "google" {}

variables {
  project = "example-project"
  name    = "aidetect"
  region  = "europe-west1"
}

run "no_endpoint_unless_asked_for" {
  command = plan

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
