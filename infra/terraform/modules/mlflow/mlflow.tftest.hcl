mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      email  = "aidetect-mlflow@example-project.iam.gserviceaccount.com"
      member = "serviceAccount:aidetect-mlflow@example-project.iam.gserviceaccount.com"
    }
  }
}

variables {
  project       = "example-project"
  name          = "aidetect"
  region        = "europe-west1"
  image         = "registry.test/example/mlflow@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  bucket_prefix = "example-project-aidetect"
  callers = {
    train  = { email = "aidetect-train@example-project.iam.gserviceaccount.com", role = "write" }
    deploy = { email = "aidetect-deploy@example-project.iam.gserviceaccount.com", role = "deploy" }
    owner  = { email = "owner@example.test", role = "deploy" }
  }
}

run "only_named_callers_reach_it" {
  command = apply

  assert {
    condition     = toset([for grant in google_cloud_run_v2_service_iam_member.invoker : grant.member]) == toset(["serviceAccount:aidetect-train@example-project.iam.gserviceaccount.com", "serviceAccount:aidetect-deploy@example-project.iam.gserviceaccount.com", "user:owner@example.test"])
    error_message = "somebody else may call the server, or a caller may not"
  }
  assert {
    condition     = one([for env in google_cloud_run_v2_service.this[0].template[0].containers[0].env : env.value if env.name == "MLFLOW_ACCESS_DEPLOY"]) == "aidetect-deploy@example-project.iam.gserviceaccount.com,owner@example.test"
    error_message = "the server is told something else than who may move the champion"
  }
  assert {
    condition     = alltrue([for env in google_cloud_run_v2_service.this[0].template[0].containers[0].env : env.name != "MLFLOW_BACKEND_STORE_URI" || length(env.value_source) == 1])
    error_message = "the database's address, with its password, must come from the secret"
  }
}

run "without_an_image_the_database_stands_alone" {
  command = plan
  variables {
    image = ""
  }
  assert {
    condition     = length(google_cloud_run_v2_service.this) == 0 && length(google_cloud_run_v2_service_iam_member.invoker) == 0
    error_message = "a server without an image"
  }
}

run "everybody_is_no_caller" {
  command = plan
  variables {
    callers = { all = { email = "allUsers", role = "deploy" } }
  }
  expect_failures = [var.callers]
}

run "somebody_must_be_able_to_promote" {
  command = plan
  variables {
    callers = { train = { email = "aidetect-train@example-project.iam.gserviceaccount.com", role = "write" } }
  }
  expect_failures = [google_cloud_run_v2_service.this]
}
