mock_provider "google" {}

variables {
  project          = "example-project"
  name             = "aidetect"
  region           = "europe-west1"
  service          = "ai-product-photo-detector"
  host             = "service.example.test"
  metrics_scraped  = true
  alert_emails     = ["oncall@example.test"]
  runbook_url      = "https://docs.example.test/runbooks/"
  retrain_channels = ["projects/example-project/notificationChannels/retrain"]
}

run "alerts_reach_someone_and_name_their_runbook" {
  command = apply

  assert {
    condition     = length(google_monitoring_alert_policy.model) == 3 && length(google_monitoring_alert_policy.down[0].notification_channels) == 1
    error_message = "an alert is missing, or reaches nobody"
  }
  assert {
    condition     = alltrue([for name, policy in google_monitoring_alert_policy.model : strcontains(policy.documentation[0].content, "https://docs.example.test/runbooks/")])
    error_message = "an alert names no runbook"
  }
}

run "drift_wakes_retraining_and_nothing_else_does" {
  command = apply

  assert {
    condition     = contains(google_monitoring_alert_policy.model["drift-alarm"].notification_channels, "projects/example-project/notificationChannels/retrain") && google_monitoring_alert_policy.model["drift-alarm"].user_labels.action == "retrain"
    error_message = "a drift alarm wakes nobody"
  }
  assert {
    condition     = length(google_monitoring_alert_policy.model["model-not-loaded"].notification_channels) == 1
    error_message = "an alert that is no reason to retrain wakes retraining"
  }
  assert {
    condition     = length(google_monitoring_dashboard.this) == 4
    error_message = "a dashboard is missing"
  }
}

run "no_alert_on_metrics_that_nobody_reads" {
  command = plan
  variables {
    metrics_scraped = false
  }
  assert {
    condition     = length(google_monitoring_alert_policy.model) == 0
    error_message = "without the sidecar these alerts could never fire"
  }
}

run "a_private_service_is_not_asked_without_an_identity" {
  command = plan
  variables {
    public = false
  }
  assert {
    condition     = length(google_monitoring_uptime_check_config.ready) == 0 && length(google_monitoring_alert_policy.down) == 0
    error_message = "the check would fail for ever, and page"
  }
}

run "a_perfect_goal_is_refused" {
  command = plan
  variables {
    availability_goal = 1
  }
  expect_failures = [var.availability_goal]
}
