# From an alert to a training run: Cloud Monitoring -> Pub/Sub -> a small service that decides, once for each cause, and asks
# GitHub to run the training workflow with the reason. Asleep until an alert comes.
locals {
  secret = "${var.name}-github-token"
}

data "google_project" "this" {
  project_id = var.project
}

resource "google_service_account" "this" {
  for_each = { retrain = "decides whether to retrain", alerts = "brings alerts to who decides" }

  project      = var.project
  account_id   = "${var.name}-${each.key}"
  display_name = "${var.name} ${each.value}"
}

resource "google_project_iam_member" "metrics" {
  project = var.project
  role    = "roles/monitoring.viewer"
  member  = google_service_account.this["retrain"].member
}

# What the service's instances tell each other and the next training: labels that users gave, and windows of drift.
resource "google_storage_bucket" "evidence" {
  #checkov:skip=CKV_GCP_78:windows of drift are written again every minute; labels are written once, and soft delete keeps what is lost
  project                     = var.project
  name                        = "${var.bucket_prefix}-evidence"
  location                    = var.region
  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false
  labels                      = var.labels

  soft_delete_policy {
    retention_duration_seconds = 7 * 24 * 3600
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 30 # FEEDBACK_RETENTION_DAYS: so long a label is waited for
      matches_prefix = ["drift/", "answers/", "given/"]
    }
  }
}

# Objects are added and read; nobody who serves changes or deletes one.
resource "google_storage_bucket_iam_member" "service" {
  for_each = toset(["roles/storage.objectCreator", "roles/storage.objectViewer"])

  bucket = google_storage_bucket.evidence.name
  role   = each.value
  member = var.service
}

resource "google_storage_bucket_iam_member" "readers" {
  for_each = var.readers

  bucket = google_storage_bucket.evidence.name
  role   = "roles/storage.objectViewer"
  member = each.value
}

resource "google_storage_bucket_iam_member" "records" {
  for_each = {
    state    = { bucket = var.state_bucket, role = "roles/storage.objectUser" }
    evidence = { bucket = google_storage_bucket.evidence.name, role = "roles/storage.objectViewer" }
  }

  bucket = each.value.bucket
  role   = each.value.role
  member = google_service_account.this["retrain"].member
}

# A token of GitHub that may start workflows of this repository and nothing else: `aidetect bootstrap` adds it. The first version
# is drawn at random, because no revision starts on a secret without one; GitHub refuses it.
resource "google_secret_manager_secret" "github" {
  project   = var.project
  secret_id = local.secret
  labels    = var.labels

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_version" "github" {
  secret                 = google_secret_manager_secret.github.id
  secret_data_wo         = sha256(uuid())
  secret_data_wo_version = 1
  deletion_policy        = "ABANDON"

  lifecycle {
    ignore_changes = [enabled]
  }
}

resource "google_secret_manager_secret_iam_member" "github" {
  project   = var.project
  secret_id = google_secret_manager_secret.github.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.this["retrain"].member
}

resource "google_pubsub_topic" "alerts" {
  project = var.project
  name    = "${var.name}-alerts"
  labels  = var.labels
}

resource "google_pubsub_topic_iam_member" "monitoring" {
  project = var.project
  topic   = google_pubsub_topic.alerts.name
  role    = "roles/pubsub.publisher"
  member  = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-monitoring-notification.iam.gserviceaccount.com"

  depends_on = [google_monitoring_notification_channel.this]
}

# The first channel of this kind also makes Monitoring's own agent, which may then be granted the topic.
resource "google_monitoring_notification_channel" "this" {
  project      = var.project
  display_name = "${var.name} retraining"
  type         = "pubsub"
  labels       = { topic = google_pubsub_topic.alerts.id }
}

resource "google_cloud_run_v2_service" "this" {
  count = var.image == "" ? 0 : 1

  project             = var.project
  name                = "${var.name}-retrain"
  location            = var.region
  description         = "Decides whether an alert is a reason to retrain"
  ingress             = "INGRESS_TRAFFIC_INTERNAL_ONLY" # Pub/Sub of the same project counts as inside
  deletion_protection = false
  labels              = var.labels

  template {
    service_account                  = google_service_account.this["retrain"].email
    timeout                          = "300s"
    max_instance_request_concurrency = 8

    scaling {
      min_instance_count = 0
      max_instance_count = 1
    }

    containers {
      name  = "retrain"
      image = var.image
      args = [
        "python3", "-m", "pipelines.alert_receiver", "--host", "0.0.0.0", "--port", "8080", "--behind-google", "--",
        "aidetect", "retrain", "--profile", "production", "--dispatch", var.github_repository,
        "--prometheus", "https://monitoring.googleapis.com/v1/projects/${var.project}/location/global/prometheus",
      ]

      ports {
        container_port = 8080
      }

      resources {
        limits   = { cpu = "1", memory = "1Gi" }
        cpu_idle = true
      }

      env {
        name  = "AIDETECT_RETRAIN__STATE_PATH"
        value = "gs://${var.state_bucket}/retrain.jsonl"
      }
      env {
        name  = "AIDETECT_RETRAIN__FEEDBACK_PATH"
        value = "gs://${google_storage_bucket.evidence.name}/labels/"
      }
      env {
        name = "GITHUB_TOKEN"
        value_source {
          secret_key_ref {
            secret  = google_secret_manager_secret.github.secret_id
            version = "latest"
          }
        }
      }

      startup_probe {
        period_seconds    = 2
        failure_threshold = 30
        http_get {
          path = "/livez"
          port = 8080
        }
      }
    }
  }

  depends_on = [
    google_project_iam_member.metrics,
    google_secret_manager_secret_iam_member.github,
    google_secret_manager_secret_version.github,
    google_storage_bucket_iam_member.records,
  ]
}

resource "google_cloud_run_v2_service_iam_member" "invoker" {
  count = var.image == "" ? 0 : 1

  project  = var.project
  location = google_cloud_run_v2_service.this[0].location
  name     = google_cloud_run_v2_service.this[0].name
  role     = "roles/run.invoker"
  member   = google_service_account.this["alerts"].member
}

resource "google_pubsub_subscription" "this" {
  count = var.image == "" ? 0 : 1

  project                    = var.project
  name                       = "${var.name}-retrain"
  topic                      = google_pubsub_topic.alerts.id
  ack_deadline_seconds       = 600
  message_retention_duration = "86400s"
  labels                     = var.labels

  push_config {
    push_endpoint = "${google_cloud_run_v2_service.this[0].uri}/alerts"
    oidc_token {
      service_account_email = google_service_account.this["alerts"].email
      audience              = google_cloud_run_v2_service.this[0].uri
    }
  }

  retry_policy {
    minimum_backoff = "60s"
    maximum_backoff = "600s"
  }

  expiration_policy {
    ttl = "" # never
  }
}
