# What pages: the public address does not answer, the error budget burns too fast, the model is gone, drift stays. The metrics
# named here are those of the service's own /metrics, which the sidecar brings into Managed Service for Prometheus.
locals {
  runbook  = trimsuffix(var.runbook_url, "/")
  channels = [for channel in google_monitoring_notification_channel.email : channel.name]

  # The alerts of infra/prometheus/rules/alerts.yml that need no recording rule, under the same names (a test compares them).
  policies = var.metrics_scraped ? {
    model-not-loaded = {
      query    = "aidetect_model_loaded == 0"
      duration = "120s"
      severity = "CRITICAL"
      text     = "An instance serves without a verified model."
    }
    drift-alarm = {
      query    = "max(aidetect_drift_alert) >= 2"
      duration = "0s"
      severity = "CRITICAL"
      text     = "Two of three windows of predictions differ from the baseline: see /drift, then `aidetect retrain`."
      wakes    = true
    }
    server-saturated = {
      query    = "sum by (instance) (rate(aidetect_rejected_total{reason=\"overloaded\"}[5m])) > 0 or avg_over_time(aidetect_queue_depth[5m]) > 4"
      duration = "300s"
      severity = "WARNING"
      text     = "The service turns work away."
    }
  } : {}
}

resource "google_monitoring_notification_channel" "email" {
  for_each = toset(var.alert_emails)

  project      = var.project
  display_name = "${var.name} ${each.value}"
  type         = "email"
  labels       = { email_address = each.value }
}

# Asks without an identity: a private service would refuse it, and look down for ever.
resource "google_monitoring_uptime_check_config" "ready" {
  count = var.public ? 1 : 0

  project      = var.project
  display_name = "${var.name} ready"
  timeout      = "10s"
  period       = "60s"

  http_check {
    path           = "/readyz"
    port           = 443
    use_ssl        = true
    validate_ssl   = true
    request_method = "GET"
  }

  monitored_resource {
    type = "uptime_url"
    labels = {
      project_id = var.project
      host       = var.host
    }
  }
}

resource "google_monitoring_service" "this" {
  project      = var.project
  service_id   = var.name
  display_name = var.name

  basic_service {
    service_type = "CLOUD_RUN"
    service_labels = {
      service_name = var.service
      location     = var.region
    }
  }
}

resource "google_monitoring_slo" "availability" {
  project             = var.project
  service             = google_monitoring_service.this.service_id
  slo_id              = "availability"
  display_name        = "${var.availability_goal * 100} % of requests answered without a server error"
  goal                = var.availability_goal
  rolling_period_days = 28

  basic_sli {
    availability {
      enabled = true
    }
  }
}

resource "google_monitoring_slo" "latency" {
  project             = var.project
  service             = google_monitoring_service.this.service_id
  slo_id              = "latency"
  display_name        = "${var.latency_goal * 100} % of requests within ${var.latency_threshold_ms} ms"
  goal                = var.latency_goal
  rolling_period_days = 28

  basic_sli {
    latency {
      threshold = "${var.latency_threshold_ms / 1000}s"
    }
  }
}

resource "google_monitoring_alert_policy" "down" {
  count = var.public ? 1 : 0

  project               = var.project
  display_name          = "${var.name}: the public address does not answer"
  combiner              = "OR"
  severity              = "CRITICAL"
  notification_channels = local.channels

  conditions {
    display_name = "uptime check fails from two regions"
    condition_threshold {
      filter          = "resource.type = \"uptime_url\" AND metric.type = \"monitoring.googleapis.com/uptime_check/check_passed\" AND metric.labels.check_id = \"${google_monitoring_uptime_check_config.ready[0].uptime_check_id}\""
      comparison      = "COMPARISON_GT"
      threshold_value = 1
      duration        = "120s"
      aggregations {
        alignment_period     = "120s"
        per_series_aligner   = "ALIGN_NEXT_OLDER"
        cross_series_reducer = "REDUCE_COUNT_FALSE"
        group_by_fields      = ["resource.label.host"]
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "Runbook: ${local.runbook}/server-down.md"
  }
}

# Two burn rates for each objective: a fast one that pages within minutes, a slow one that finds a leak.
resource "google_monitoring_alert_policy" "burn" {
  for_each = {
    error   = google_monitoring_slo.availability.name
    latency = google_monitoring_slo.latency.name
  }

  project               = var.project
  display_name          = "${var.name}: ${each.key} budget burns too fast"
  combiner              = "OR"
  severity              = "ERROR"
  notification_channels = local.channels

  dynamic "conditions" {
    for_each = { fast = { lookback = "3600s", rate = 14.4 }, slow = { lookback = "21600s", rate = 6 } }
    content {
      display_name = "${conditions.key}: ${conditions.value.rate} times the sustainable rate"
      condition_threshold {
        filter          = "select_slo_burn_rate(\"${each.value}\", \"${conditions.value.lookback}\")"
        comparison      = "COMPARISON_GT"
        threshold_value = conditions.value.rate
        duration        = "0s"
      }
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "Runbook: ${local.runbook}/${each.key}-budget.md"
  }
}

resource "google_monitoring_alert_policy" "model" {
  for_each = local.policies

  project               = var.project
  display_name          = "${var.name}: ${each.key}"
  combiner              = "OR"
  severity              = each.value.severity
  notification_channels = concat(local.channels, try(each.value.wakes, false) ? var.retrain_channels : [])
  user_labels           = try(each.value.wakes, false) ? { action = "retrain" } : {}

  conditions {
    display_name = each.key
    condition_prometheus_query_language {
      query                     = each.value.query
      duration                  = each.value.duration
      evaluation_interval       = "60s"
      disable_metric_validation = true # the metrics appear with the first revision
    }
  }

  documentation {
    mime_type = "text/markdown"
    content   = "${each.value.text} Runbook: ${local.runbook}/${each.key}.md"
  }
}

# The panels of Grafana's dashboards, written by infra/grafana/generate.py.
resource "google_monitoring_dashboard" "this" {
  for_each = var.metrics_scraped ? fileset("${path.module}/dashboards", "*.json") : []

  project        = var.project
  dashboard_json = file("${path.module}/dashboards/${each.value}")
}
