variable "project" {
  description = "Project id."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "project must be a project id: 6 to 30 lower-case letters, digits and hyphens, not its display name or number."
  }
}

variable "environment" {
  description = "dev or prod."
  type        = string

  validation {
    condition     = contains(["dev", "prod"], var.environment)
    error_message = "environment must be dev or prod."
  }
}

variable "name" {
  description = "Short name that resources begin with."
  type        = string
  default     = "aidetect"
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "europe-west1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "region must be a region such as europe-west1, not a zone or a multi-region."
  }
}

variable "bucket_prefix" {
  description = "What the buckets' names begin with; empty: PROJECT-NAME."
  type        = string
  default     = ""
}

variable "github_repository" {
  description = "OWNER/NAME of the repository whose workflows deploy here."
  type        = string
}

variable "github_repository_id" {
  description = "Number of that repository: gh api repos/OWNER/NAME --jq .id"
  type        = string
}

variable "service" {
  description = "Name of the Cloud Run service."
  type        = string
  default     = "ai-product-photo-detector"
}

variable "image" {
  description = "Serving image of the first revision, by digest; empty: Google's sample until the first release."
  type        = string
  default     = ""
}

variable "model_uri" {
  description = "Model of the first revision; empty with the sample."
  type        = string
  default     = ""
}

variable "service_environment" {
  description = "Further settings of the service."
  type        = map(string)
  default     = {}
}

variable "public" {
  description = "Anyone may call; API keys decide. False: only `invokers`, by Google identity, and API keys besides."
  type        = bool
}

variable "invokers" {
  description = "Members that may call a service that is not public, by a fixed label."
  type        = map(string)
  default     = {}
}

variable "min_instances" {
  description = "Instances kept warm."
  type        = number
}

variable "max_instances" {
  description = "Most instances."
  type        = number
}

variable "metrics_sidecar_image" {
  description = "Google's Managed Prometheus sidecar by digest; empty for none."
  type        = string
  default     = ""
}

variable "deletion_protection" {
  description = "Refuse to destroy the service."
  type        = bool
}

variable "artifact_retention_days" {
  description = "Days after which the artifacts of pipeline runs expire."
  type        = number
}

variable "vertex_endpoints" {
  description = "Vertex endpoints to make: {users, smoke} -> numeric id; empty for none."
  type        = map(string)
  default     = {}
}

variable "alert_emails" {
  description = "Addresses that alerts go to."
  type        = list(string)
}

variable "availability_goal" {
  description = "Share of requests to be answered without a server error."
  type        = number
}

variable "billing_account" {
  description = "Billing account of the budget; empty for no budget."
  type        = string
  default     = ""
}

variable "monthly_budget" {
  description = "Budget of a month in whole units of the billing account's currency."
  type        = number
}

variable "labels" {
  description = "Further labels of everything."
  type        = map(string)
  default     = {}
}
