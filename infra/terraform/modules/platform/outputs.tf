output "service_url" {
  description = "Address of the service (GitHub variable SERVICE_URL)."
  value       = module.cloud_run.url
}

output "github_variables" {
  description = "What the workflows read: set these in the repository, e.g. `gh variable set NAME --body VALUE`."
  value = {
    GCP_PROJECT                    = var.project
    GCP_REGION                     = var.region
    GCP_WORKLOAD_IDENTITY_PROVIDER = module.iam.workload_identity_provider
    GCP_BUILD_SERVICE_ACCOUNT      = module.iam.emails.build
    GCP_DEPLOY_SERVICE_ACCOUNT     = module.iam.emails.deploy
    GCP_TRAIN_SERVICE_ACCOUNT      = module.iam.emails.train
    GCP_PREVIEW_SERVICE_ACCOUNT    = module.iam.emails.preview
    PIPELINE_SERVICE_ACCOUNT       = module.iam.emails.pipeline
    DATA_URI                       = "gs://${module.storage.buckets.data}/cifake"
    PIPELINE_BUCKET                = "gs://${module.storage.buckets.pipelines}"
    LEDGER_URI                     = "gs://${module.storage.buckets.records}/promotions.jsonl"
    IMAGE_REGISTRY                 = module.registry.host
    IMAGE_REPOSITORY               = module.registry.repository
    SERVICE_URL                    = module.cloud_run.url
    PREVIEW_SERVICE                = module.preview.service
    PREVIEW_KEYS                   = module.secrets.ids["preview-keys"]
    MLFLOW_TRACKING_URI            = var.mlflow ? one(module.mlflow[*].uri) : ""
  }
}

output "buckets" {
  description = "Bucket names by use."
  value       = module.storage.buckets
}
