# Always awake, public behind API keys, protected from being destroyed.
module "platform" {
  source = "../../modules/platform"

  environment             = "prod"
  project                 = var.project
  region                  = var.region
  bucket_prefix           = var.bucket_prefix
  github_repository       = var.github_repository
  github_repository_id    = var.github_repository_id
  image                   = var.image
  model_uri               = var.model_uri
  service_environment     = var.service_environment
  metrics_sidecar_image   = var.metrics_sidecar_image
  retrain_image           = var.retrain_image
  mlflow                  = var.mlflow
  mlflow_image            = var.mlflow_image
  mlflow_database_tier    = "db-custom-1-3840"
  pipeline_deploys        = var.pipeline_deploys
  operators               = var.operators
  alert_emails            = var.alert_emails
  billing_account         = var.billing_account
  monthly_budget          = 400
  public                  = true
  min_instances           = 1
  max_instances           = 10
  deletion_protection     = true
  artifact_retention_days = 90
  availability_goal       = 0.995
}
