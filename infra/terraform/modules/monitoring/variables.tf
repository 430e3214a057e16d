variable "project" {
  description = "Project id."
  type        = string
}

variable "name" {
  description = "Short name of the deployment."
  type        = string
}

variable "region" {
  description = "Region of the service."
  type        = string
}

variable "service" {
  description = "Name of the Cloud Run service."
  type        = string
}

variable "host" {
  description = "Host of the service's public address."
  type        = string
}

variable "public" {
  description = "Whether anyone may call the service; only then is it asked from outside whether it answers."
  type        = bool
  default     = true
}

variable "metrics_scraped" {
  description = "Whether the service's own metrics reach Managed Service for Prometheus (the sidecar runs)."
  type        = bool
}

variable "alert_emails" {
  description = "Addresses that alerts go to."
  type        = list(string)

  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+\\.[^@ ]+$", address))])
    error_message = "alert_emails must be e-mail addresses."
  }
}

variable "runbook_url" {
  description = "Where docs/runbooks can be read."
  type        = string
}

variable "availability_goal" {
  description = "Share of requests to be answered without a server error."
  type        = number
  default     = 0.995

  validation {
    condition     = var.availability_goal > 0.5 && var.availability_goal < 1
    error_message = "availability_goal must lie between 0.5 and 1; 1 leaves no error budget."
  }
}

variable "latency_goal" {
  description = "Share of requests to be answered within latency_threshold_ms."
  type        = number
  default     = 0.95

  validation {
    condition     = var.latency_goal > 0.5 && var.latency_goal < 1
    error_message = "latency_goal must lie between 0.5 and 1."
  }
}

variable "latency_threshold_ms" {
  description = "Latency that the objective allows, in milliseconds."
  type        = number
  default     = 1000
}

variable "retrain_channels" {
  description = "Notification channels that wake retraining; the alerts that ask for it go there too."
  type        = list(string)
  default     = []
}
