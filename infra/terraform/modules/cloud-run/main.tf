# The service that CD deploys to. Terraform owns what it is - identity, limits, probes, scaling, secrets, who may call it - and
# leaves alone the three things that a deployment changes: the image, the model that a revision serves, and the traffic.
resource "google_cloud_run_v2_service" "this" {
  project             = var.project
  name                = var.service
  location            = var.region
  description         = "Tells real product photos from AI-generated ones"
  ingress             = var.ingress
  deletion_protection = var.deletion_protection
  labels              = var.labels

  template {
    service_account                  = var.service_account
    timeout                          = "${var.request_timeout_s}s"
    max_instance_request_concurrency = var.concurrency
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"

    scaling {
      min_instance_count = var.min_instances
      max_instance_count = var.max_instances
    }

    containers {
      name  = "serving"
      image = var.image

      ports {
        container_port = 8080
      }

      resources {
        limits = {
          cpu    = tostring(var.cpu)
          memory = "${var.memory_mb}Mi"
        }
        cpu_idle          = var.min_instances == 0
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = merge({
          MODEL_URI       = var.model_uri
          REQUIRE_AUTH    = "true"
          TRUSTED_PROXIES = "1"
          EXPLAIN_WARMUP  = "true"
          # Cloud Run takes 32 MiB over HTTP/1; the form around a batch has 64 KiB of them
          MAX_BATCH_BYTES = tostring(32 * 1024 * 1024 - 64 * 1024)
        }, var.environment)
        content {
          name  = env.key
          value = env.value
        }
      }

      env {
        name = "API_KEYS"
        value_source {
          secret_key_ref {
            secret  = var.api_keys_secret
            version = "latest"
          }
        }
      }

      startup_probe {
        period_seconds    = 2
        timeout_seconds   = 2
        failure_threshold = 60
        http_get {
          path = "/startup"
          port = 8080
        }
      }

      liveness_probe {
        period_seconds    = 15
        timeout_seconds   = 5
        failure_threshold = 3
        http_get {
          path = "/livez"
          port = 8080
        }
      }
    }

    # reads /metrics of the service and writes to Managed Service for Prometheus, where the alert policies ask
    dynamic "containers" {
      for_each = var.metrics_sidecar_image == "" ? [] : [var.metrics_sidecar_image]
      content {
        name       = "metrics"
        image      = containers.value
        depends_on = ["serving"]
      }
    }
  }

  traffic {
    type    = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
    percent = 100
  }

  lifecycle {
    precondition {
      # measured: 600 with torch, 160 of bodies, 200 for the worst request in each slot
      condition     = var.memory_mb >= 760 + 200 * var.cpu
      error_message = "memory_mb must be at least 760 + 200 for each CPU: one engine slot runs on each."
    }

    ignore_changes = [
      client,
      client_version,
      traffic,
      template[0].annotations,
      template[0].containers[0].image,
      template[0].containers[0].env,
      template[0].labels,
      template[0].revision,
    ]
  }
}

resource "google_cloud_run_v2_service_iam_member" "invoker" {
  for_each = var.invokers

  project  = var.project
  location = google_cloud_run_v2_service.this.location
  name     = google_cloud_run_v2_service.this.name
  role     = "roles/run.invoker"
  member   = each.value
}

resource "google_cloud_run_v2_service_iam_member" "deployer" {
  for_each = var.deployers

  project  = var.project
  location = google_cloud_run_v2_service.this.location
  name     = google_cloud_run_v2_service.this.name
  role     = "roles/run.developer"
  member   = each.value
}
