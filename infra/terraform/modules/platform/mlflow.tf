# Tracking and registry. `train` starts runs and may record and make versions; what a run does, the pipeline's account does:
# it aliases the challenger, and the champion only where runs deploy by themselves. Whoever starts runs says what they do,
# so by default neither moves the champion: `deploy` does, whose jobs GitHub lets wait for a reviewer.
module "mlflow" {
  source     = "../mlflow"
  count      = var.mlflow ? 1 : 0
  depends_on = [module.apis]

  project             = var.project
  name                = var.name
  region              = var.region
  image               = var.mlflow_image
  bucket_prefix       = var.bucket_prefix == "" ? "${var.project}-${var.name}" : var.bucket_prefix
  database_tier       = var.mlflow_database_tier
  deletion_protection = var.deletion_protection
  labels              = local.labels
  callers = merge(
    {
      serving  = { email = module.iam.emails.serving, role = "read" }
      train    = { email = module.iam.emails.train, role = "write" }
      pipeline = { email = module.iam.emails.pipeline, role = var.pipeline_deploys ? "deploy" : "register" }
      deploy   = { email = module.iam.emails.deploy, role = "deploy" }
    },
    { for email in var.operators : "operator ${email}" => { email = email, role = "deploy" } },
  )
}

variable "mlflow" {
  description = "Make an MLflow server of this deployment's own; false where tracking.uri names another one."
  type        = bool
  default     = true
}

variable "mlflow_image" {
  description = "The mlflow image by digest; empty: its database and bucket stand, the server comes with the image."
  type        = string
  default     = ""
}

variable "mlflow_database_tier" {
  description = "Machine of MLflow's database."
  type        = string
  default     = "db-custom-1-3840"
}

variable "pipeline_deploys" {
  description = "Runs may move the champion themselves (deploy.auto); whoever starts one then can, too. False: they end with a challenger, which `aidetect deploy` promotes."
  type        = bool
  default     = false
}

variable "operators" {
  description = "E-mail addresses of people who run and promote from their own machine: they may call MLflow."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for email in var.operators : can(regex("^[^@ :]+@[^@ ]+\\.[^@ ]+$", email))])
    error_message = "operators are plain e-mail addresses, without user: before them."
  }
}

output "mlflow_uri" {
  description = "Address of MLflow (tracking.uri); empty where there is none."
  value       = var.mlflow ? one(module.mlflow[*].uri) : ""
}
