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

variable "build_days" {
  description = "Age in days beyond which images tagged build-, and those without a tag, are deleted."
  type        = number
  default     = 30

  validation {
    condition     = var.build_days >= 7
    error_message = "build_days must be at least 7: a pull request's preview may be looked at for a week."
  }
}

variable "release_days" {
  description = "Age in days beyond which images tagged release- are deleted, but for the newest ones."
  type        = number
  default     = 365

  validation {
    condition     = var.release_days >= 90
    error_message = "release_days must be at least 90, or a rollback may find its image gone."
  }
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
