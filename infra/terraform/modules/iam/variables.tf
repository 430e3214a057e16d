variable "project" {
  description = "Project id."
  type        = string
}

variable "name" {
  description = "Short name; service accounts are NAME-{serving,sandbox,pipeline,build,deploy,train,preview}."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,19}$", var.name))
    error_message = "name must be 3 to 20 lower-case letters, digits and hyphens: an account id has 30 at most."
  }
}

variable "github_repository" {
  description = "OWNER/NAME of the repository whose workflows may sign in."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$", var.github_repository))
    error_message = "github_repository must be written OWNER/NAME; anything wider would let foreign repositories in."
  }
}

variable "github_repository_id" {
  description = "Number of that repository (`gh api repos/OWNER/NAME --jq .id`): names change hands, numbers do not."
  type        = string

  validation {
    condition     = can(regex("^[1-9][0-9]{0,18}$", var.github_repository_id))
    error_message = "github_repository_id must be the repository's number: gh api repos/OWNER/NAME --jq .id"
  }
}

variable "github_branch" {
  description = "Branch whose workflows deploy and train; those of pull requests and other branches may not."
  type        = string
  default     = "main"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._/-]{0,99}$", var.github_branch))
    error_message = "github_branch is the name of one branch, without refs/heads/ and without a wildcard."
  }
}

variable "pipeline_deploys" {
  description = "Whether runs of the pipeline bring versions to users themselves, instead of leaving them to who deploys."
  type        = bool
  default     = false
}

variable "vertex_endpoints" {
  description = "Whether models are served by Vertex AI endpoints too, which the deploying account then moves."
  type        = bool
  default     = false
}
