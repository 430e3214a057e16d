mock_provider "google" {}

variables {
  project = "example-project"
  further = ["billingbudgets.googleapis.com"]
}

run "what_is_used_is_enabled" {
  command = apply

  assert {
    condition     = alltrue([for name in ["aiplatform", "cloudresourcemanager", "run", "secretmanager", "serviceusage", "billingbudgets"] : contains(output.enabled, "${name}.googleapis.com")])
    error_message = "an API is missing"
  }
}

run "a_short_name_is_refused" {
  command = plan
  variables {
    services = ["run"]
  }
  expect_failures = [var.services]
}
