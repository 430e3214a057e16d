variable "project" {
  description = "Project id."
  type        = string
}

variable "name" {
  description = "Short name of the deployment; service, database and account are NAME-mlflow."
  type        = string
}

variable "region" {
  description = "Region of service and database."
  type        = string
}

variable "image" {
  description = "The mlflow image by digest; empty: database and bucket stand, no server runs yet."
  type        = string

  validation {
    condition     = var.image == "" || can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must end in @sha256: and 64 hexadecimal digits: a tag may move under a running revision."
  }
}

variable "bucket_prefix" {
  description = "What the name of the files' bucket begins with; it ends in -mlflow."
  type        = string
}

variable "callers" {
  description = "Who may call, by a fixed label: e-mail address and role. read looks; write records runs and makes versions; register also aliases a challenger; deploy also moves the champion."
  type        = map(object({ email = string, role = string }))

  validation {
    condition     = alltrue([for caller in var.callers : contains(["read", "write", "register", "deploy"], caller.role)])
    error_message = "A caller's role is read, write, register or deploy."
  }

  validation {
    condition     = !anytrue([for caller in var.callers : contains(["allUsers", "allAuthenticatedUsers"], caller.email)])
    error_message = "Whoever writes here says which model is served: callers are named one by one."
  }
}

variable "database_tier" {
  description = "Machine of the database; one CPU and 3.75 GB: shared-core tiers have no availability goal."
  type        = string
  default     = "db-custom-1-3840"
}

variable "database_disk_limit_gb" {
  description = "Largest size that the database's disk grows to by itself."
  type        = number
  default     = 50
}

variable "backups_kept" {
  description = "Daily backups kept."
  type        = number
  default     = 14
}

variable "max_instances" {
  description = "Most instances of the server."
  type        = number
  default     = 3
}

variable "deletion_protection" {
  description = "Refuse to destroy the database."
  type        = bool
  default     = true
}

variable "labels" {
  description = "Labels of everything."
  type        = map(string)
  default     = {}
}

variable "password_version" {
  description = "Number of the database's password; a greater one draws a new one."
  type        = number
  default     = 1
}
