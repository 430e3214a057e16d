variable "project" {
  description = "Project id."
  type        = string
}

variable "region" {
  description = "Region of everything."
  type        = string
  default     = "europe-west1"
}

variable "bucket_prefix" {
  description = "What the buckets' names begin with; empty: PROJECT-aidetect."
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

variable "image" {
  description = "Serving image of the first revision, by digest; empty: Google's sample until the first release."
  type        = string
  default     = ""
}

variable "model_uri" {
  description = "Model of the first revision: gs://bucket/folder or models:/name@alias; empty with the sample."
  type        = string
  default     = ""
}

variable "service_environment" {
  description = "Further settings of the service, e.g. MLFLOW_TRACKING_URI."
  type        = map(string)
  default     = {}
}

variable "metrics_sidecar_image" {
  description = "Google's Managed Prometheus sidecar, a version of Google's own repository or by digest; empty for none, and then no drift alarm exists."
  type        = string
  default     = "us-docker.pkg.dev/cloud-ops-agents-artifacts/cloud-run-gmp-sidecar/cloud-run-gmp-sidecar:1.3.0"
}

variable "alert_emails" {
  description = "Addresses that alerts go to."
  type        = list(string)
  default     = []
}

variable "billing_account" {
  description = "Billing account of the budget; empty for no budget."
  type        = string
  default     = ""
}
