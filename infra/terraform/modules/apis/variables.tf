variable "project" {
  description = "Project id."
  type        = string
}

variable "services" {
  description = "APIs to enable beside cloudresourcemanager and serviceusage."
  type        = set(string)
  default = [
    "aiplatform.googleapis.com",
    "artifactregistry.googleapis.com",
    "compute.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "logging.googleapis.com",
    "monitoring.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",
  ]

  validation {
    condition     = alltrue([for service in var.services : endswith(service, ".googleapis.com")])
    error_message = "A service is named as Google names it, e.g. run.googleapis.com."
  }
}

variable "further" {
  description = "APIs that only some deployments need, e.g. billingbudgets.googleapis.com for a budget."
  type        = set(string)
  default     = []
}
