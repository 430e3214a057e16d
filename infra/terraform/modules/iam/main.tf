# Who acts: two identities that run (serving, pipeline) and four that GitHub Actions may borrow, each for one kind of job.
# Grants on resources stand beside those resources; here are only identities and the roles that exist for a project alone.
locals {
  accounts = {
    serving  = "Runs the service"
    pipeline = "Runs the stages of the training pipeline"
    build    = "GitHub Actions: pushes images"
    deploy   = "GitHub Actions: deploys and rolls back"
    train    = "GitHub Actions: submits training runs"
    preview  = "GitHub Actions: previews of pull requests"
  }

  # Writing metrics and logs, and running Vertex AI jobs, cannot be granted on anything smaller than a project.
  project_roles = {
    serving  = ["roles/logging.logWriter", "roles/monitoring.metricWriter"]
    pipeline = ["roles/aiplatform.user", "roles/logging.logWriter"]
    train    = ["roles/aiplatform.user"]
  }

  # A job is known by its environment, which GitHub protects (reviewers, branches); building has none and is known by its file.
  github_subjects = {
    build   = ["principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}/attribute.workflow/${var.github_repository}/.github/workflows/images.yml"]
    deploy  = ["principal://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}/subject/repo:${var.github_repository}:environment:production"]
    train   = ["principal://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}/subject/repo:${var.github_repository}:environment:training"]
    preview = ["principal://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}/subject/repo:${var.github_repository}:environment:preview"]
  }
}

resource "google_service_account" "this" {
  for_each = local.accounts

  project      = var.project
  account_id   = "${var.name}-${each.key}"
  display_name = each.value
}

resource "google_project_iam_member" "this" {
  for_each = merge([
    for account, roles in local.project_roles : { for role in roles : "${account} ${role}" => { account = account, role = role } }
  ]...)

  project = var.project
  role    = each.value.role
  member  = google_service_account.this[each.value.account].member
}

# Who may start something that then runs as another account.
resource "google_service_account_iam_member" "acts_as" {
  for_each = {
    "deploy serving"   = { actor = "deploy", as = "serving" }
    "preview serving"  = { actor = "preview", as = "serving" }
    "pipeline serving" = { actor = "pipeline", as = "serving" }
    "train pipeline"   = { actor = "train", as = "pipeline" }
  }

  service_account_id = google_service_account.this[each.value.as].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.this[each.value.actor].member
}

resource "google_iam_workload_identity_pool" "github" {
  project                   = var.project
  workload_identity_pool_id = "${var.name}-github"
  display_name              = "GitHub Actions"
  description               = "Jobs of ${var.github_repository}, without keys"
}

resource "google_iam_workload_identity_pool_provider" "github" {
  project                            = var.project
  workload_identity_pool_id          = google_iam_workload_identity_pool.github.workload_identity_pool_id
  workload_identity_pool_provider_id = "github"
  display_name                       = "GitHub OIDC"
  attribute_condition                = "assertion.repository == '${var.github_repository}'"
  attribute_mapping = {
    "google.subject"       = "assertion.sub"
    "attribute.repository" = "assertion.repository"
    "attribute.workflow"   = "assertion.job_workflow_ref.split('@')[0]"
  }

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "github" {
  for_each = merge([
    for account, members in local.github_subjects : { for index, member in members : "${account} ${index}" => { account = account, member = member } }
  ]...)

  service_account_id = google_service_account.this[each.value.account].name
  role               = "roles/iam.workloadIdentityUser"
  member             = each.value.member
}
