# The whole deployment, wired once; an environment is this module with other values.
locals {
  labels = merge({ app = "ai-product-photo-detector", environment = var.environment, managed-by = "terraform" }, var.labels)
  host   = trimprefix(module.cloud_run.url, "https://")
}

module "iam" {
  source = "../iam"

  project           = var.project
  name              = var.name
  github_repository = var.github_repository
}

module "storage" {
  source = "../storage"

  project                 = var.project
  name                    = var.name
  bucket_prefix           = var.bucket_prefix
  location                = var.region
  artifact_retention_days = var.artifact_retention_days
  labels                  = local.labels
  grants = [
    { bucket = "models", role = "roles/storage.objectViewer", name = "serving", member = module.iam.members.serving },
    { bucket = "data", role = "roles/storage.objectViewer", name = "pipeline", member = module.iam.members.pipeline },
    { bucket = "models", role = "roles/storage.objectUser", name = "pipeline", member = module.iam.members.pipeline },
    { bucket = "pipelines", role = "roles/storage.objectUser", name = "pipeline", member = module.iam.members.pipeline },
    { bucket = "pipelines", role = "roles/storage.objectUser", name = "train", member = module.iam.members.train },
    { bucket = "models", role = "roles/storage.objectUser", name = "deploy", member = module.iam.members.deploy },
    { bucket = "models", role = "roles/storage.objectViewer", name = "preview", member = module.iam.members.preview },
  ]
}

module "registry" {
  source = "../registry"

  project  = var.project
  name     = var.service
  location = var.region
  labels   = local.labels
  writers  = { build = module.iam.members.build }
  readers = {
    for account in ["serving", "pipeline", "deploy", "train", "preview"] : account => module.iam.members[account]
  }
}

module "secrets" {
  source = "../secrets"

  project = var.project
  name    = var.name
  labels  = local.labels
  # besides the service itself: whoever smoke-tests a revision of it
  secrets = { api-keys = { for account in ["serving", "pipeline", "deploy", "preview"] : account => module.iam.members[account] } }
}

module "cloud_run" {
  source = "../cloud-run"

  project               = var.project
  region                = var.region
  service               = var.service
  image                 = var.image
  model_uri             = var.model_uri
  environment           = var.service_environment
  api_keys_secret       = module.secrets.ids["api-keys"]
  service_account       = module.iam.emails.serving
  min_instances         = var.min_instances
  max_instances         = var.max_instances
  metrics_sidecar_image = var.metrics_sidecar_image
  deletion_protection   = var.deletion_protection
  labels                = local.labels
  invokers              = var.public ? { public = "allUsers" } : var.invokers
  deployers = {
    for account in ["deploy", "preview", "pipeline"] : account => module.iam.members[account]
  }
}

module "vertex" {
  source = "../vertex"

  project    = var.project
  name       = var.name
  region     = var.region
  endpoints  = var.vertex_endpoints
  labels     = local.labels
  submitters = { train = module.iam.members.train, pipeline = module.iam.members.pipeline }
}

module "monitoring" {
  source = "../monitoring"

  project           = var.project
  name              = var.name
  region            = var.region
  service           = module.cloud_run.service
  host              = local.host
  metrics_scraped   = var.metrics_sidecar_image != ""
  alert_emails      = var.alert_emails
  runbook_url       = "https://github.com/${var.github_repository}/blob/main/docs/runbooks"
  availability_goal = var.availability_goal
}

module "budget" {
  source = "../budget"
  count  = var.billing_account == "" ? 0 : 1

  project               = var.project
  name                  = var.name
  billing_account       = var.billing_account
  monthly_amount        = var.monthly_budget
  notification_channels = module.monitoring.notification_channels
}
