# Evidence and who acts on it: labels and drift windows in a bucket, alerts to a dispatch of the training workflow.
module "retrain" {
  source     = "../retrain"
  depends_on = [module.apis]

  project           = var.project
  name              = var.name
  region            = var.region
  image             = var.retrain_image
  github_repository = var.github_repository
  bucket_prefix     = var.bucket_prefix == "" ? "${var.project}-${var.name}" : var.bucket_prefix
  state_bucket      = module.storage.buckets.pipelines
  service           = module.iam.members.serving
  # whoever asks `aidetect retrain`: new labels are counted by their names
  readers = { train = module.iam.members.train }
  labels  = local.labels
}

variable "retrain_image" {
  description = "The pipeline image by digest, for the service that turns a drift alarm into a training run; empty: alarms only mail."
  type        = string
  default     = ""
}
