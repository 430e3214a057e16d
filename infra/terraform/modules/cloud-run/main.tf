# The service that CD deploys to. Terraform owns what it is - identity, limits, probes, scaling, settings, who may call it - and
# leaves alone what a deployment changes: the image, the model that a revision serves, and the traffic.
locals {
  settings = "/etc/aidetect"
  # answers 200 to every path on every port, so that the first apply needs neither an image nor a model
  sample = "us-docker.pkg.dev/cloudrun/container/hello"
  # a variable of the container would belong to whoever deployed last; a file of Terraform's own does not
  lines = [for name, value in var.environment : "${name}=${value}"]
}

resource "google_secret_manager_secret" "settings" {
  project   = var.project
  secret_id = "${var.service}-settings"
  labels    = var.labels

  replication {
    auto {}
  }
}

# Another version for each change: a revision keeps the one that it was made with.
resource "google_secret_manager_secret_version" "settings" {
  secret          = google_secret_manager_secret.settings.id
  secret_data     = "${join("\n", concat(["# settings of the service, from Terraform"], local.lines))}\n"
  deletion_policy = "ABANDON"

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_secret_manager_secret_iam_member" "settings" {
  project   = var.project
  secret_id = google_secret_manager_secret.settings.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = "serviceAccount:${var.service_account}"
}

resource "google_cloud_run_v2_service" "this" {
  project             = var.project
  name                = var.service
  location            = var.region
  description         = var.description
  ingress             = var.ingress
  deletion_protection = var.deletion_protection
  labels              = var.labels

  # of the whole service: on a revision it would hold an instance for each tag, with users or without
  scaling {
    min_instance_count = var.min_instances
  }

  template {
    service_account                  = var.service_account
    timeout                          = "${var.request_timeout_s}s"
    max_instance_request_concurrency = var.concurrency
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"

    scaling {
      max_instance_count = var.max_instances
    }

    volumes {
      name = "settings"
      secret {
        secret = google_secret_manager_secret.settings.secret_id
        items {
          path    = "settings.env"
          version = google_secret_manager_secret_version.settings.version
        }
      }
    }

    containers {
      name  = "serving"
      image = var.image == "" ? local.sample : var.image

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
        for_each = merge(var.model_uri == "" ? {} : { MODEL_URI = var.model_uri }, {
          REQUIRE_AUTH    = "true"
          TRUSTED_PROXIES = "1"
          EXPLAIN_WARMUP  = "true"
          # Cloud Run takes 32 MiB over HTTP/1; the form around a batch has 64 KiB of them
          MAX_BATCH_BYTES = tostring(32 * 1024 * 1024 - 64 * 1024)
          SETTINGS_FILE   = "${local.settings}/settings.env"
        })
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

      volume_mounts {
        name       = "settings"
        mount_path = local.settings
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
    ]
  }

  depends_on = [google_secret_manager_secret_iam_member.settings]
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
