variable "project" {
  description = "Project id."
  type        = string
}

variable "name" {
  description = "Short name; secrets are NAME-SECRET."
  type        = string
}

variable "secrets" {
  description = "Secret -> (fixed label of a reader -> its IAM member)."
  type        = map(map(string))
}

variable "labels" {
  description = "Labels of every secret."
  type        = map(string)
  default     = {}
}
