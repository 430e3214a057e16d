# Plans the environment with the provider's answers made up: what would be asked for is checked, not what Google says to it.
mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email  = "account@example-project.iam.gserviceaccount.com"
      member = "serviceAccount:account@example-project.iam.gserviceaccount.com"
      name   = "projects/example-project/serviceAccounts/account@example-project.iam.gserviceaccount.com"
    }
  }
  mock_resource "google_cloud_run_v2_service" {
    defaults = {
      uri = "https://ai-product-photo-detector-abc.example.test"
    }
  }
}

variables {
  github_repository_id = "123456789"

  project           = "example-project"
  github_repository = "example/ai-product-photo-detector"
  image             = "registry.test/example/serving@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  model_uri         = "gs://example-project-aidetect-models/ai-product-photo-detector/first"
  alert_emails      = ["oncall@example.test"]
  mlflow_image      = "registry.test/example/mlflow@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  billing_account   = "012345-6789AB-CDEF01"
}

run "everything_is_planned" {
  command = apply

  assert {
    condition     = output.service_url == "https://ai-product-photo-detector-abc.example.test"
    error_message = "the service's address is not handed out"
  }
  assert {
    condition     = output.github_variables.PIPELINE_BUCKET == "gs://example-project-aidetect-pipelines"
    error_message = "the pipeline bucket is not the one that the workflows are told"
  }
  assert {
    condition     = endswith(output.github_variables.IMAGE_REPOSITORY, "/example-project/ai-product-photo-detector")
    error_message = "the image repository is not HOST/PROJECT/REPOSITORY"
  }
  assert {
    condition     = length([for value in values(output.github_variables) : value if value == ""]) == 0
    error_message = "a GitHub variable is empty"
  }
}
