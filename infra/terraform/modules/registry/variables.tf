variable "project" {
  description = "Project id."
  type        = string
}

variable "name" {
  description = "Repository id."
  type        = string
}

variable "location" {
  description = "Region of the repository."
  type        = string
}

variable "keep_versions" {
  description = "Versions of each image that are kept whatever their age: as many as one may want to roll back to."
  type        = number
  default     = 20

  validation {
    condition     = var.keep_versions >= 5
    error_message = "keep_versions must be at least 5, or a rollback may find its image gone."
  }
}

variable "retention_days" {
  description = "Age in days beyond which other versions are deleted."
  type        = number
  default     = 60
}

variable "readers" {
  description = "Members that pull images, by a fixed label."
  type        = map(string)
  default     = {}
}

variable "writers" {
  description = "Members that push images, by a fixed label."
  type        = map(string)
  default     = {}
}

variable "labels" {
  description = "Labels of the repository."
  type        = map(string)
  default     = {}
}
