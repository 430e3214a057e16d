# What serving by Vertex AI needs. Schedules are not made here: `aidetect schedule apply` owns them, and they run as the pipeline's
# account.
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
}
