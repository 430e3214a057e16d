# The APIs that everything else waits for. The first two answer the questions by which Terraform itself enables the others.
resource "google_project_service" "first" {
  for_each = toset(["cloudresourcemanager.googleapis.com", "serviceusage.googleapis.com"])

  project            = var.project
  service            = each.value
  disable_on_destroy = false
}

resource "google_project_service" "this" {
  for_each = setunion(var.services, var.further)

  project            = var.project
  service            = each.value
  disable_on_destroy = false

  depends_on = [google_project_service.first]
}
