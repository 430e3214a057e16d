variable "project" {
  description = "Project id."
  type        = string
}

variable "name" {
  description = "Short name of the deployment; the service is NAME-retrain."
  type        = string
}

variable "region" {
  description = "Region of the service."
  type        = string
}

variable "image" {
  description = "The pipeline image by digest; empty: alerts wait for nobody."
  type        = string

  validation {
    condition     = var.image == "" || can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "image must end in @sha256: and 64 hexadecimal digits."
  }
}

variable "github_repository" {
  description = "OWNER/NAME whose training workflow is started."
  type        = string
}

variable "state_bucket" {
  description = "Bucket of the record of started runs (retrain.jsonl), which cool-down reads."
  type        = string
}

variable "bucket_prefix" {
  description = "What the name of the bucket of labels and drift windows begins with; it ends in -evidence."
  type        = string
}

variable "service" {
  description = "Member that the service runs as: it adds labels and windows."
  type        = string
}

variable "readers" {
  description = "Members that read labels and windows, by a fixed label."
  type        = map(string)
  default     = {}
}

variable "labels" {
  description = "Labels of everything."
  type        = map(string)
  default     = {}
}
