# The whole deployment, wired once; an environment is this module with other values.
locals {
  labels = merge({ app = "ai-product-photo-detector", environment = var.environment, managed-by = "terraform" }, var.labels)
  host   = trimprefix(module.cloud_run.url, "https://")
  # whose account, besides `deploy`, brings versions to users
  run_deploys = var.pipeline_deploys ? ["pipeline"] : []
}

# Nothing is asked of an API before it is enabled.
module "apis" {
  source = "../apis"

  project = var.project
  further = concat(["pubsub.googleapis.com"], var.mlflow ? ["sqladmin.googleapis.com"] : [], var.billing_account == "" ? [] : ["billingbudgets.googleapis.com"])
}

module "iam" {
  source     = "../iam"
  depends_on = [module.apis]

  project              = var.project
  name                 = var.name
  github_repository    = var.github_repository
  github_repository_id = var.github_repository_id
  vertex_endpoints     = length(var.vertex_endpoints) > 0
  pipeline_deploys     = var.pipeline_deploys
}

module "storage" {
  source     = "../storage"
  depends_on = [module.apis]

  project                 = var.project
  name                    = var.name
  bucket_prefix           = var.bucket_prefix
  location                = var.region
  artifact_retention_days = var.artifact_retention_days
  labels                  = local.labels
  # `train` starts runs and reads whether their data is there; what a run makes, the run's own account writes. The ledger of
  # promotions says what previews show and what a rollback goes back to: only who promotes writes it.
  grants = concat([
    { bucket = "models", role = "roles/storage.objectViewer", name = "serving", member = module.iam.members.serving },
    { bucket = "models", role = "roles/storage.objectViewer", name = "sandbox", member = module.iam.members.sandbox },
    { bucket = "data", role = "roles/storage.objectViewer", name = "pipeline", member = module.iam.members.pipeline },
    { bucket = "models", role = "roles/storage.objectUser", name = "pipeline", member = module.iam.members.pipeline },
    { bucket = "pipelines", role = "roles/storage.objectUser", name = "pipeline", member = module.iam.members.pipeline },
    { bucket = "data", role = "roles/storage.objectViewer", name = "train", member = module.iam.members.train },
    { bucket = "pipelines", role = "roles/storage.objectUser", name = "train", member = module.iam.members.train },
    { bucket = "models", role = "roles/storage.objectViewer", name = "deploy", member = module.iam.members.deploy },
    { bucket = "records", role = "roles/storage.objectUser", name = "deploy", member = module.iam.members.deploy },
    { bucket = "models", role = "roles/storage.objectViewer", name = "preview", member = module.iam.members.preview },
    { bucket = "records", role = "roles/storage.objectViewer", name = "preview", member = module.iam.members.preview },
    ], [
    for account in local.run_deploys :
    { bucket = "records", role = "roles/storage.objectUser", name = account, member = module.iam.members[account] }
  ])
}

module "registry" {
  source     = "../registry"
  depends_on = [module.apis]

  project  = var.project
  name     = var.service
  location = var.region
  labels   = local.labels
  writers  = { build = module.iam.members.build }
  # who deploys an image, or looks it up before a run; Google's own agents pull it
  readers = {
    for account in concat(["deploy", "train", "preview"], local.run_deploys) : account => module.iam.members[account]
  }
}

module "secrets" {
  source     = "../secrets"
  depends_on = [module.apis]

  project = var.project
  name    = var.name
  labels  = local.labels
  # besides the service itself: whoever smoke-tests a revision of it. Previews have keys of their own.
  secrets = {
    api-keys     = { for account in concat(["serving", "deploy"], local.run_deploys) : account => module.iam.members[account] }
    preview-keys = { for account in ["sandbox", "preview"] : account => module.iam.members[account] }
  }
}

# Grants before the service: a revision that cannot read its keys or its model never becomes ready.
module "cloud_run" {
  source     = "../cloud-run"
  depends_on = [module.storage, module.registry]

  project   = var.project
  region    = var.region
  service   = var.service
  image     = var.image
  model_uri = var.model_uri
  environment = merge({
    EVIDENCE_URI = "gs://${module.retrain.bucket}"
    FEEDBACK_DIR = "/tmp/feedback"
  }, var.service_environment)
  api_keys_secret       = module.secrets.ids["api-keys"]
  service_account       = module.iam.emails.serving
  min_instances         = var.min_instances
  max_instances         = var.max_instances
  metrics_sidecar_image = var.metrics_sidecar_image
  deletion_protection   = var.deletion_protection
  labels                = local.labels
  invokers              = var.public ? { public = "allUsers" } : var.invokers
  deployers = {
    for account in concat(["deploy"], local.run_deploys) : account => module.iam.members[account]
  }
}

# Pull requests are tried on a service of their own: its account, its keys, no instance while nobody looks.
module "preview" {
  source     = "../cloud-run"
  depends_on = [module.storage, module.registry]

  project             = var.project
  region              = var.region
  service             = "${var.service}-preview"
  description         = "Previews of pull requests, without users"
  api_keys_secret     = module.secrets.ids["preview-keys"]
  service_account     = module.iam.emails.sandbox
  min_instances       = 0
  max_instances       = 2
  deletion_protection = false
  labels              = local.labels
  invokers            = var.public ? { public = "allUsers" } : var.invokers
  deployers           = { preview = module.iam.members.preview }
}

module "vertex" {
  source     = "../vertex"
  depends_on = [module.apis]

  project   = var.project
  name      = var.name
  region    = var.region
  endpoints = var.vertex_endpoints
  labels    = local.labels
}

module "monitoring" {
  source     = "../monitoring"
  depends_on = [module.apis]

  project           = var.project
  name              = var.name
  region            = var.region
  service           = module.cloud_run.service
  host              = local.host
  public            = var.public
  metrics_scraped   = var.metrics_sidecar_image != ""
  alert_emails      = var.alert_emails
  runbook_url       = "https://github.com/${var.github_repository}/blob/main/docs/runbooks"
  availability_goal = var.availability_goal
  retrain_channels  = [module.retrain.channel]
}

module "budget" {
  source     = "../budget"
  depends_on = [module.apis]
  count      = var.billing_account == "" ? 0 : 1

  project               = var.project
  name                  = var.name
  billing_account       = var.billing_account
  monthly_amount        = var.monthly_budget
  notification_channels = module.monitoring.notification_channels
}
