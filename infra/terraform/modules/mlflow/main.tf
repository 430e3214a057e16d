# MLflow for one deployment: Cloud Run that no anonymous call reaches, PostgreSQL behind it, its files in a bucket. Who calls is
# asked twice: by Cloud Run (roles/run.invoker), and by the server itself, which knows what each account may do to versions and
# aliases (components/mlflow_server).
locals {
  # Drawn anew in every apply, and used only where `password_version` changed: in user and secret at once. Arguments of this kind
  # stand neither in the plan nor in the state.
  password = sha256(uuid())

  # MLFLOW_ACCESS_{READ,WRITE,REGISTER,DEPLOY}: comma lists of e-mail addresses
  access  = { for role in ["read", "write", "register", "deploy"] : role => sort([for name, caller in var.callers : caller.email if caller.role == role]) }
  members = { for name, caller in var.callers : name => strcontains(caller.email, ".gserviceaccount.com") ? "serviceAccount:${caller.email}" : "user:${caller.email}" }
}

resource "google_service_account" "this" {
  project      = var.project
  account_id   = "${var.name}-mlflow"
  display_name = "${var.name} MLflow server"
}

# The files of runs and versions. An earlier copy of whatever is written over or deleted stays for a month.
resource "google_storage_bucket" "files" {
  project                     = var.project
  name                        = "${var.bucket_prefix}-mlflow"
  location                    = var.region
  storage_class               = "STANDARD"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false
  labels                      = var.labels

  versioning {
    enabled = true
  }

  soft_delete_policy {
    retention_duration_seconds = 7 * 24 * 3600
  }

  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      days_since_noncurrent_time = 30
      with_state                 = "ARCHIVED"
    }
  }

  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 7
    }
  }
}

resource "google_storage_bucket_iam_member" "files" {
  bucket = google_storage_bucket.files.name
  role   = "roles/storage.objectUser"
  member = google_service_account.this.member
}

resource "google_project_iam_member" "database" {
  project = var.project
  role    = "roles/cloudsql.client"
  member  = google_service_account.this.member
}

resource "google_secret_manager_secret" "database" {
  project   = var.project
  secret_id = "${var.name}-mlflow-database"
  labels    = var.labels

  replication {
    auto {}
  }
}

resource "google_secret_manager_secret_iam_member" "database" {
  project   = var.project
  secret_id = google_secret_manager_secret.database.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.this.member
}

# No authorised network: the address answers nobody but Google's connector, which asks for roles/cloudsql.client.
resource "google_sql_database_instance" "this" {
  #checkov:skip=CKV_GCP_60:without authorised networks its address answers Google's connector only, which needs no network of one's own
  #checkov:skip=CKV_GCP_6:ENCRYPTED_ONLY refuses what is not encrypted; the connector brings certificates of its own
  #checkov:skip=CKV_GCP_79:a new major version is an upgrade to be planned, not one that an apply may bring
  #checkov:skip=CKV_GCP_108:to look up each client's name costs a request for one client, the connector
  #checkov:skip=CKV_GCP_109:warnings are wanted in the log
  #checkov:skip=CKV_GCP_110:one program writes here; who called it stands in the server's own log
  #checkov:skip=CKV_GCP_111:statements hold parameters that belong to runs, not to logs
  #checkov:skip=CKV2_GCP_13:durations of statements would be logged with each of them
  project             = var.project
  name                = "${var.name}-mlflow"
  region              = var.region
  database_version    = "POSTGRES_16"
  deletion_protection = var.deletion_protection

  settings {
    edition                     = "ENTERPRISE"
    tier                        = var.database_tier
    availability_type           = "ZONAL"
    disk_type                   = "PD_SSD"
    disk_size                   = 10
    disk_autoresize             = true
    disk_autoresize_limit       = var.database_disk_limit_gb
    deletion_protection_enabled = var.deletion_protection
    user_labels                 = var.labels

    backup_configuration {
      enabled                        = true
      start_time                     = "02:00"
      point_in_time_recovery_enabled = true
      transaction_log_retention_days = 7
      backup_retention_settings {
        retained_backups = var.backups_kept
      }
    }

    ip_configuration {
      ipv4_enabled = true
      ssl_mode     = "ENCRYPTED_ONLY"
    }

    maintenance_window {
      day  = 7
      hour = 3
    }

    database_flags {
      name  = "log_connections"
      value = "on"
    }
    database_flags {
      name  = "log_disconnections"
      value = "on"
    }
    database_flags {
      name  = "log_checkpoints"
      value = "on"
    }
    database_flags {
      name  = "log_lock_waits"
      value = "on"
    }
  }
}

resource "google_sql_database" "this" {
  project         = var.project
  name            = "mlflow"
  instance        = google_sql_database_instance.this.name
  deletion_policy = "ABANDON"
}

resource "google_sql_user" "this" {
  project             = var.project
  name                = "mlflow"
  instance            = google_sql_database_instance.this.name
  password_wo         = local.password
  password_wo_version = var.password_version
  deletion_policy     = "ABANDON"
}

resource "google_secret_manager_secret_version" "database" {
  secret                 = google_secret_manager_secret.database.id
  secret_data_wo         = "postgresql+psycopg2://mlflow:${local.password}@/mlflow?host=/cloudsql/${google_sql_database_instance.this.connection_name}"
  secret_data_wo_version = var.password_version
  deletion_policy        = "ABANDON"

  lifecycle {
    ignore_changes = [enabled]
  }
}

resource "google_cloud_run_v2_service" "this" {
  count = var.image == "" ? 0 : 1

  project             = var.project
  name                = "${var.name}-mlflow"
  location            = var.region
  description         = "MLflow tracking and registry"
  ingress             = "INGRESS_TRAFFIC_ALL"
  deletion_protection = false # all that it knows lies in the database and the bucket
  labels              = var.labels

  template {
    service_account                  = google_service_account.this.email
    timeout                          = "300s"
    max_instance_request_concurrency = 40
    execution_environment            = "EXECUTION_ENVIRONMENT_GEN2"

    scaling {
      min_instance_count = 0
      max_instance_count = var.max_instances
    }

    volumes {
      name = "cloudsql"
      cloud_sql_instance {
        instances = [google_sql_database_instance.this.connection_name]
      }
    }

    containers {
      name  = "mlflow"
      image = var.image
      args  = ["mlflow", "server", "--app-name", "aidetect", "--host", "0.0.0.0", "--port", "5000", "--workers", "1"]

      ports {
        container_port = 5000
      }

      resources {
        limits            = { cpu = "1", memory = "2Gi" }
        cpu_idle          = true
        startup_cpu_boost = true
      }

      dynamic "env" {
        for_each = merge(
          {
            MLFLOW_ARTIFACTS_DESTINATION = "gs://${google_storage_bucket.files.name}/artifacts"
            # the token's audience is held against the Host header instead, for every route
            MLFLOW_SERVER_ALLOWED_HOSTS = "*"
          },
          { for role, emails in local.access : "MLFLOW_ACCESS_${upper(role)}" => join(",", emails) if length(emails) > 0 },
        )
        content {
          name  = env.key
          value = env.value
        }
      }

      env {
        name = "MLFLOW_BACKEND_STORE_URI"
        value_source {
          secret_key_ref {
            secret  = google_secret_manager_secret.database.secret_id
            version = "latest"
          }
        }
      }

      volume_mounts {
        name       = "cloudsql"
        mount_path = "/cloudsql"
      }

      # the first start makes the tables
      startup_probe {
        period_seconds    = 5
        timeout_seconds   = 5
        failure_threshold = 40
        http_get {
          path = "/health"
          port = 5000
        }
      }
    }
  }

  lifecycle {
    precondition {
      condition     = length(local.access.deploy) > 0
      error_message = "callers names nobody with role deploy: no model could ever be promoted."
    }
  }

  depends_on = [
    google_project_iam_member.database,
    google_secret_manager_secret_iam_member.database,
    google_storage_bucket_iam_member.files,
    google_secret_manager_secret_version.database,
    google_sql_database.this,
    google_sql_user.this,
  ]
}

resource "google_cloud_run_v2_service_iam_member" "invoker" {
  for_each = var.image == "" ? {} : local.members

  project  = var.project
  location = google_cloud_run_v2_service.this[0].location
  name     = google_cloud_run_v2_service.this[0].name
  role     = "roles/run.invoker"
  member   = each.value
}
