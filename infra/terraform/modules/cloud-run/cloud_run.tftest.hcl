mock_provider "google" {}

variables {
  project         = "example-project"
  region          = "europe-west1"
  service         = "ai-product-photo-detector"
  image           = "registry.test/example/serving@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  model_uri       = "gs://example/model"
  api_keys_secret = "aidetect-api-keys"
  service_account = "aidetect-serving@example-project.iam.gserviceaccount.com"
}

run "the_service_is_what_the_server_expects" {
  command = plan

  assert {
    condition     = google_cloud_run_v2_service.this.template[0].containers[0].ports[0].container_port == 8080
    error_message = "the server listens on 8080"
  }
  assert {
    condition     = contains([for env in google_cloud_run_v2_service.this.template[0].containers[0].env : "${env.name}=${coalesce(env.value, "secret")}"], "REQUIRE_AUTH=true")
    error_message = "the service would answer without a key"
  }
  assert {
    condition     = google_cloud_run_v2_service.this.template[0].containers[0].startup_probe[0].http_get[0].path == "/startup"
    error_message = "the start-up probe asks elsewhere"
  }
  assert {
    condition     = google_cloud_run_v2_service.this.deletion_protection
    error_message = "the service could be destroyed by accident"
  }
  assert {
    condition     = length(google_cloud_run_v2_service.this.template[0].containers) == 1 && length(google_cloud_run_v2_service_iam_member.invoker) == 0
    error_message = "nothing may be public, and no sidecar may run, unless asked for"
  }
}

run "the_sidecar_is_a_second_container" {
  command = plan
  variables {
    metrics_sidecar_image = "registry.test/sidecar@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
  }
  assert {
    condition     = length(google_cloud_run_v2_service.this.template[0].containers) == 2
    error_message = "the sidecar is missing"
  }
}

run "the_first_apply_needs_no_image_and_no_model" {
  command = plan
  variables {
    image     = ""
    model_uri = ""
  }
  assert {
    condition     = !strcontains(google_cloud_run_v2_service.this.template[0].containers[0].image, var.service)
    error_message = "the sample must not look like an image of ours"
  }
}

run "warm_instances_belong_to_the_service_and_not_to_each_tag" {
  command = plan
  variables {
    min_instances = 1
    environment   = { RATE_LIMIT_STORAGE_URI = "redis://cache" }
  }
  assert {
    condition     = google_cloud_run_v2_service.this.scaling[0].min_instance_count == 1
    error_message = "the service would sleep"
  }
  assert {
    condition     = !contains([for env in google_cloud_run_v2_service.this.template[0].containers[0].env : env.name], "RATE_LIMIT_STORAGE_URI")
    error_message = "a setting among what deployments change would never be changed again"
  }
  assert {
    condition     = strcontains(google_secret_manager_secret_version.settings.secret_data, "RATE_LIMIT_STORAGE_URI=redis://cache")
    error_message = "the setting reaches nobody"
  }
}

run "an_image_without_its_model_is_refused" {
  command = plan
  variables {
    model_uri = ""
  }
  expect_failures = [var.model_uri]
}

run "an_image_by_tag_is_refused" {
  command = plan
  variables {
    image = "registry.test/example/serving:latest"
  }
  expect_failures = [var.image]
}

run "keys_in_plain_environment_are_refused" {
  command = plan
  variables {
    environment = { API_KEYS = "plain" }
  }
  expect_failures = [var.environment]
}

run "too_little_memory_for_torch_is_refused" {
  command = plan
  variables {
    memory_mb = 512
  }
  expect_failures = [var.memory_mb]
}

run "a_local_model_is_refused" {
  command = plan
  variables {
    model_uri = "/models/latest"
  }
  expect_failures = [var.model_uri]
}
