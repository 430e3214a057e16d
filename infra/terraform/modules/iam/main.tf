# Who acts: three identities that run (serving, sandbox, pipeline) and four that GitHub Actions may borrow, each for one kind of job.
# Grants on resources stand beside those resources; here are only identities and the roles that exist for a project alone.
locals {
  accounts = {
    serving  = "Runs the service"
    sandbox  = "Runs previews of pull requests"
    pipeline = "Runs the stages of the training pipeline"
    build    = "GitHub Actions: pushes images"
    deploy   = "GitHub Actions: deploys and rolls back"
    train    = "GitHub Actions: submits training runs"
    preview  = "GitHub Actions: previews of pull requests"
  }

  # Writing metrics and logs, and running Vertex AI jobs, cannot be granted on anything smaller than a project.
  project_roles = {
    serving  = ["roles/logging.logWriter", "roles/monitoring.metricWriter"]
    sandbox  = ["roles/logging.logWriter"]
    pipeline = ["roles/aiplatform.user", "roles/logging.logWriter"]
    train    = ["roles/aiplatform.user"]
  }

  # What no role of Google's gives alone, for the whole project because these things stand nowhere smaller: the operations of
  # Cloud Run (an update is polled there, beside the service that a grant names), and the aliases of models in Vertex AI.
  watches_operations = ["run.operations.get"]
  moves_aliases      = ["aiplatform.models.list", "aiplatform.models.update"]
  moves_endpoints = [
    "aiplatform.endpoints.deploy", "aiplatform.endpoints.get", "aiplatform.endpoints.predict",
    "aiplatform.endpoints.undeploy", "aiplatform.endpoints.update", "aiplatform.models.get",
  ]
  custom_roles = merge({
    deploy  = concat(local.watches_operations, local.moves_aliases, var.vertex_endpoints ? local.moves_endpoints : [])
    preview = local.watches_operations
    # how many accelerators the project may use, asked before a run is sent
    train = ["serviceusage.quotas.get"]
  }, var.pipeline_deploys ? { pipeline = local.watches_operations } : {})

  # A job is known by its environment, which GitHub protects (reviewers, branches); building has none and is known by its file.
  # Whose environment it is, the provider's condition has asked: `sub` is not looked at, GitHub spells it in several ways. A pull
  # request's workflow is its own and may name any environment: what reaches production must be of the branch as well.
  pool = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}"
  github_members = {
    build   = "${local.pool}/attribute.workflow/${var.github_repository}/.github/workflows/images.yml"
    deploy  = "${local.pool}/attribute.job/production:refs/heads/${var.github_branch}"
    train   = "${local.pool}/attribute.job/training:refs/heads/${var.github_branch}"
    preview = "${local.pool}/attribute.environment/preview"
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

resource "google_project_iam_custom_role" "this" {
  for_each = local.custom_roles

  project     = var.project
  role_id     = "${replace(var.name, "-", "_")}_${each.key}"
  title       = "${var.name} ${each.key}"
  description = "What the account ${each.key} needs and no role of Google's gives alone"
  permissions = each.value
}

resource "google_project_iam_member" "custom" {
  for_each = local.custom_roles

  project = var.project
  role    = google_project_iam_custom_role.this[each.key].name
  member  = google_service_account.this[each.key].member
}

# Who may start something that then runs as another account.
resource "google_service_account_iam_member" "acts_as" {
  for_each = merge({
    "deploy serving"  = { actor = "deploy", as = "serving" }
    "preview sandbox" = { actor = "preview", as = "sandbox" }
    "train pipeline"  = { actor = "train", as = "pipeline" }
    # a training on several machines, or on spot ones, is a job of its own, which the stage submits: Google asks for this
    # although both are one
    "pipeline pipeline" = { actor = "pipeline", as = "pipeline" }
  }, var.pipeline_deploys ? { "pipeline serving" = { actor = "pipeline", as = "serving" } } : {})

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
  # ids are never given to another owner or repository; names are
  attribute_condition = "assertion.repository_id == '${var.github_repository_id}'"
  attribute_mapping = {
    "google.subject"          = "assertion.sub"
    "attribute.repository_id" = "assertion.repository_id"
    # a job without an environment carries no such claim
    "attribute.environment" = "has(assertion.environment) ? assertion.environment : 'none'"
    "attribute.job"         = "has(assertion.environment) ? assertion.environment + ':' + assertion.ref : 'none'"
    "attribute.workflow"    = "assertion.job_workflow_ref.split('@')[0]"
  }

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

resource "google_service_account_iam_member" "github" {
  for_each = local.github_members

  service_account_id = google_service_account.this[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = each.value
}
