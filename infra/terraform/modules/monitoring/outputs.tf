output "notification_channels" {
  description = "Channels that alerts go to."
  value       = local.channels
}

output "slos" {
  description = "Resource names of the objectives."
  value = {
    availability = google_monitoring_slo.availability.name
    latency      = google_monitoring_slo.latency.name
  }
}
