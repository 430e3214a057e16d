# Small, asleep when nobody asks, closed to the public, easily thrown away.
module "platform" {
  source = "../../modules/platform"

  environment             = "dev"
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
  mlflow_database_tier    = "db-f1-micro"
  pipeline_deploys        = var.pipeline_deploys
  operators               = var.operators
  alert_emails            = var.alert_emails
  billing_account         = var.billing_account
  monthly_budget          = 50
  public                  = false
  min_instances           = 0
  max_instances           = 2
  deletion_protection     = false
  artifact_retention_days = 14
  availability_goal       = 0.95
}
