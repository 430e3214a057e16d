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

variable "retrain_image" {
  description = "The pipeline image by digest, for the service that turns a drift alarm into a training run; empty: alarms only mail."
  type        = string
  default     = ""
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
}

output "mlflow_uri" {
  description = "Address of MLflow (tracking.uri in pipeline_config.yaml), as `aidetect bootstrap` reads it."
  value       = module.platform.mlflow_uri
}
