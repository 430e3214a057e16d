# The secrets, a first version of each, and who may read them. Later versions are added by hand or by a rotation.
resource "google_secret_manager_secret" "this" {
  for_each = var.secrets

  project   = var.project
  secret_id = "${var.name}-${each.key}"
  labels    = var.labels

  replication {
    auto {}
  }
}

# A service cannot start on a secret without a version. This one is drawn at random when it is made and goes to Google alone:
# an argument of this kind stands neither in the plan nor in the state. Rotated later, it is not made again.
resource "google_secret_manager_secret_version" "first" {
  for_each = var.secrets

  secret                 = google_secret_manager_secret.this[each.key].id
  secret_data_wo         = sha256(uuid())
  secret_data_wo_version = 1
  deletion_policy        = "ABANDON"

  lifecycle {
    ignore_changes = [enabled]
  }
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each = merge([
    for secret, readers in var.secrets : { for reader, member in readers : "${secret} ${reader}" => { secret = secret, member = member } }
  ]...)

  project   = var.project
  secret_id = google_secret_manager_secret.this[each.value.secret].secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = each.value.member
}
