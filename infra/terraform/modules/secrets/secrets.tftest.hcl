mock_provider "google" {}

variables {
  project = "example-project"
  name    = "aidetect"
  secrets = { api-keys = { serving = "serviceAccount:serving@example.test" } }
}

run "one_reader_and_no_value_in_the_state" {
  command = plan
  assert {
    condition     = google_secret_manager_secret_iam_member.reader["api-keys serving"].role == "roles/secretmanager.secretAccessor"
    error_message = "the service cannot read its keys"
  }
}
