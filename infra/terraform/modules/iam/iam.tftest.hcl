mock_provider "google" {
  mock_resource "google_service_account" {
    defaults = {
      member = "serviceAccount:account@example-project.iam.gserviceaccount.com"
      name   = "projects/example-project/serviceAccounts/account@example-project.iam.gserviceaccount.com"
    }
  }
}

variables {
  project           = "example-project"
  name              = "aidetect"
  github_repository = "example/ai-product-photo-detector"

  github_repository_id = "123456789"
}

run "only_this_repository_signs_in" {
  command = apply

  assert {
    condition     = google_iam_workload_identity_pool_provider.github.attribute_condition == "assertion.repository_id == '123456789'"
    error_message = "other repositories could sign in"
  }
  assert {
    condition     = endswith(google_service_account_iam_member.github["deploy"].member, "/attribute.job/production:refs/heads/main") && endswith(google_service_account_iam_member.github["train"].member, "/attribute.job/training:refs/heads/main")
    error_message = "deploying or training is not bound to the protected environment and the branch"
  }
  assert {
    condition     = alltrue([for grant in google_service_account_iam_member.github : !strcontains(grant.member, "/subject/")])
    error_message = "GitHub spells a job's subject in several ways: bind to its attributes"
  }
}

run "no_project_wide_power" {
  command = plan

  assert {
    condition = alltrue([
      for grant in google_project_iam_member.this :
      contains(["roles/logging.logWriter", "roles/monitoring.metricWriter", "roles/aiplatform.user"], grant.role)
    ])
    error_message = "a role is granted on the whole project that could be granted on one resource"
  }
  assert {
    condition     = length([for grant in google_project_iam_member.this : grant if grant.role == "roles/aiplatform.user"]) == 2
    error_message = "only the pipeline and who submits it use Vertex AI"
  }
  assert {
    condition     = google_project_iam_custom_role.this["preview"].permissions == toset(["run.operations.get"])
    error_message = "a preview may watch its own updates and nothing else of the project"
  }
  assert {
    condition     = google_service_account_iam_member.acts_as["preview sandbox"].role == "roles/iam.serviceAccountUser" && length([for key in keys(google_service_account_iam_member.acts_as) : key if endswith(key, " serving")]) == 1
    error_message = "only who deploys starts something as the service; a preview runs as the sandbox"
  }
  assert {
    condition     = !contains(keys(google_project_iam_custom_role.this), "pipeline")
    error_message = "a run that deploys nothing has no update to watch"
  }
}

run "runs_deploy_where_that_is_wanted" {
  command = plan
  variables {
    pipeline_deploys = true
  }

  assert {
    condition     = google_project_iam_custom_role.this["pipeline"].permissions == toset(["run.operations.get"]) && contains(keys(google_service_account_iam_member.acts_as), "pipeline serving")
    error_message = "a run that deploys watches its update and names the service's account"
  }
}

run "a_repository_without_its_number_is_refused" {
  command = plan
  variables {
    github_repository_id = "example/ai-product-photo-detector"
  }
  expect_failures = [var.github_repository_id]
}

run "a_wildcard_repository_is_refused" {
  command = plan
  variables {
    github_repository = "example/*"
  }
  expect_failures = [var.github_repository]
}

run "a_wildcard_branch_is_refused" {
  command = plan
  variables {
    github_branch = "*"
  }
  expect_failures = [var.github_branch]
}

run "a_name_too_long_for_an_account_is_refused" {
  command = plan
  variables {
    name = "ai-product-photo-detector"
  }
  expect_failures = [var.name]
}
