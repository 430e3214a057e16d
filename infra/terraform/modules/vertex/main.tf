# What training on Vertex AI needs beyond its identity and buckets: the APIs, and leave to look at the project it runs in.
# Schedules are not made here: `aidetect schedule apply` owns them, and they run as the pipeline's account.
resource "google_project_service" "this" {
  for_each = toset([
    "aiplatform.googleapis.com",
    "artifactregistry.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "compute.googleapis.com",
    "iam.googleapis.com",
    "iamcredentials.googleapis.com",
    "monitoring.googleapis.com",
    "run.googleapis.com",
    "secretmanager.googleapis.com",
    "storage.googleapis.com",
    "sts.googleapis.com",
  ])

  project            = var.project
  service            = each.value
  disable_on_destroy = false
}

# The client checks before each submission that the staging bucket belongs to this project; without leave it waits a minute.
resource "google_project_iam_custom_role" "preflight" {
  project     = var.project
  role_id     = "${replace(var.name, "-", "_")}_preflight"
  title       = "${var.name} preflight"
  description = "See which project this is, and nothing else"
  permissions = ["resourcemanager.projects.get"]
}

resource "google_project_iam_member" "preflight" {
  for_each = var.submitters

  project = var.project
  role    = google_project_iam_custom_role.preflight.name
  member  = each.value
}

# Two endpoints, where models are served by Vertex AI: it cannot address one model of a shared endpoint, so a version is tried
# on an endpoint without users first. An endpoint without a model costs nothing.
resource "google_vertex_ai_endpoint" "this" {
  for_each = var.endpoints

  project      = var.project
  location     = var.region
  name         = each.value
  display_name = "${var.name}-${each.key}"
  description  = each.key == "smoke" ? "Tries a version before it meets users" : "Serves users"
  labels       = var.labels

  depends_on = [google_project_service.this]
}
