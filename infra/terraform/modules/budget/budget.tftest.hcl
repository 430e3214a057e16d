mock_provider "google" {}

variables {
  project         = "example-project"
  name            = "aidetect"
  billing_account = "012345-6789AB-CDEF01"
  monthly_amount  = 50
}

run "four_thresholds" {
  command = plan
  assert {
    condition     = length(google_billing_budget.this.threshold_rules) == 4
    error_message = "half, nine tenths, all, and all as forecast"
  }
}

run "a_fraction_is_refused" {
  command = plan
  variables {
    monthly_amount = 0.5
  }
  expect_failures = [var.monthly_amount]
}
