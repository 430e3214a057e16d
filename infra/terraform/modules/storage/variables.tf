variable "project" {
  description = "Project id."
  type        = string
}

variable "name" {
  description = "Short name of the deployment; buckets are PROJECT-NAME-{data,models,pipelines,records} unless they have a prefix of their own."
  type        = string
}

variable "bucket_prefix" {
  description = "What the buckets' names begin with; empty: PROJECT-NAME."
  type        = string
  default     = ""

  validation {
    condition     = var.bucket_prefix == "" || can(regex("^[a-z0-9][a-z0-9-]{1,50}[a-z0-9]$", var.bucket_prefix))
    error_message = "bucket_prefix must be 3 to 52 lower-case letters, digits and hyphens."
  }
}

variable "location" {
  description = "Region or multi-region of the buckets."
  type        = string
}

variable "artifact_retention_days" {
  description = "Days after which the artifacts of pipeline runs expire."
  type        = number
  default     = 90

  validation {
    condition     = var.artifact_retention_days >= 7 && floor(var.artifact_retention_days) == var.artifact_retention_days
    error_message = "artifact_retention_days must be a whole number of at least 7: a champion's run must outlive its canary."
  }
}

variable "grants" {
  description = "Who may do what in which bucket. `name` is any fixed label: members may be unknown until they are made."
  type = list(object({
    bucket = string
    role   = string
    name   = string
    member = string
  }))
  default = []

  validation {
    condition     = alltrue([for grant in var.grants : contains(["data", "models", "pipelines", "records"], grant.bucket)])
    error_message = "A grant names one of the buckets data, models, pipelines, records."
  }

  validation {
    condition     = alltrue([for grant in var.grants : contains(["roles/storage.objectViewer", "roles/storage.objectUser"], grant.role)])
    error_message = "A grant gives roles/storage.objectViewer or roles/storage.objectUser; nobody administers buckets but Terraform."
  }
}

variable "labels" {
  description = "Labels of every bucket."
  type        = map(string)
  default     = {}
}
