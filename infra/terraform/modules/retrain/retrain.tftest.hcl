mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email  = "account@example-project.iam.gserviceaccount.com"
      member = "serviceAccount:account@example-project.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_cloud_run_v2_service" {
    defaults = {
      uri = "https://aidetect-retrain-abc.example.test"
    }
  }
}

variables {
  project           = "example-project"
  name              = "aidetect"
  region            = "europe-west1"
  image             = "registry.test/example/pipeline@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  github_repository = "example/ai-product-photo-detector"
  state_bucket      = "example-project-aidetect-models"
  bucket_prefix     = "example-project-aidetect"
  service           = "serviceAccount:aidetect-serving@example-project.iam.gserviceaccount.com"
}

run "an_alert_reaches_who_decides_and_nobody_else_does" {
  command = apply

  assert {
    condition     = google_pubsub_subscription.this[0].push_config[0].push_endpoint == "https://aidetect-retrain-abc.example.test/alerts"
    error_message = "alerts are brought elsewhere"
  }
  assert {
    condition     = length(google_cloud_run_v2_service_iam_member.invoker) == 1 && google_cloud_run_v2_service_iam_member.invoker[0].member != "allUsers"
    error_message = "somebody else may wake retraining"
  }
  assert {
    condition     = alltrue([for env in google_cloud_run_v2_service.this[0].template[0].containers[0].env : env.name != "GITHUB_TOKEN" || length(env.value_source) == 1])
    error_message = "the token must come from the secret"
  }
}

run "without_an_image_nothing_runs" {
  command = plan
  variables {
    image = ""
  }
  assert {
    condition     = length(google_cloud_run_v2_service.this) == 0 && length(google_pubsub_subscription.this) == 0
    error_message = "a service without an image"
  }
}
