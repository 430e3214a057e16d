# Four buckets: data is kept, models are kept for as long as they may be rolled back to, run artifacts expire; the records of
# promotions lie apart from the models, because who makes a version is not who says that it is served.
locals {
  prefix = var.bucket_prefix == "" ? "${var.project}-${var.name}" : var.bucket_prefix
  buckets = {
    data      = { expire_days = null }
    models    = { expire_days = null }
    pipelines = { expire_days = var.artifact_retention_days }
    records   = { expire_days = null }
  }
}

resource "google_storage_bucket" "this" {
  for_each = local.buckets

  project                     = var.project
  name                        = "${local.prefix}-${each.key}"
  location                    = var.location
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
      num_newer_versions = 3
      with_state         = "ARCHIVED"
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

  dynamic "lifecycle_rule" {
    for_each = each.value.expire_days == null ? [] : [each.value.expire_days]
    content {
      action {
        type = "Delete"
      }
      condition {
        age = lifecycle_rule.value
        # not what the workflows write down beside the runs
        matches_prefix = ["pipeline-root/"]
      }
    }
  }
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = { for grant in var.grants : "${grant.bucket} ${grant.role} ${grant.name}" => grant }

  bucket = google_storage_bucket.this[each.value.bucket].name
  role   = each.value.role
  member = each.value.member
}
