"""Every grant of Terraform against the first day on Google Cloud: what each account needs, and nothing it does not.

What is called here is what the code calls (`first_day` names it step by step); the tests beside this one run the code.
"""

import json
import re
from datetime import UTC, datetime

import pytest
from google.auth.exceptions import RefreshError

from components.platform.google_cloud import google_errors
from infra.ci.terraform_plans import made_of
from pipelines.bootstrap import fix_of
from pipelines.config import load_config
from serving.platform.errors import StageError
from serving.platform.grants import remedy, to_grant
from tests.cloud.first_day import CLAIMS, PROJECT, bucket, first_day, play
from tests.fakes.policy import HERE, Plan, Policy, RefusedError, api_of, cel, plan_of
from tests.fakes.project import KEPT_FOR, Project

ENVIRONMENTS = ("dev", "prod")


@pytest.fixture(params=ENVIRONMENTS)
def environment(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_plans_are_those_of_the_terraform_code(environment: str) -> None:
    kept = json.loads((HERE / "plans" / f"{environment}.json").read_text())["made_of"]
    assert kept == made_of(), "a .tf file changed: python infra/ci/terraform_plans.py"


def test_the_first_day_works(environment: str) -> None:
    told = play(plan_of(environment), environment)
    assert [(step.name, step.answer) for step in told if step.answer] == []
    assert len(told) > 10


def test_each_grant_taken_away_stops_the_step_that_needs_it(environment: str) -> None:
    whole = plan_of(environment)
    made = [found["address"] for found in whole.resources if re.search(r"_iam_(member|binding|policy)$", found["type"])]
    grants = whole.bindings
    assert [grant.address for grant in grants] == made, "policy.py does not know what some of them grant on"
    assert any("module.mlflow" in address for address in made) and any("module.retrain" in address for address in made)
    superfluous = []
    for binding in grants:
        failed = [step for step in play(plan_of(environment, binding.address), environment) if step.answer]
        if not failed:
            superfluous.append(binding.address)
            continue
        needed = re.search(r"Permission '([\w.]+)'", failed[0].answer)
        assert needed, failed[0].answer
        assert needed[1] in whole.permissions(binding.role), (binding.address, failed[0])
        told = re.fullmatch(r"grant (\S+) to the account .*", to_grant(failed[0].answer))
        assert told and needed[1] in {told[1], *(whole.permissions(told[1]) if "/" in told[1] else ())}, failed[0]
    assert superfluous == []


def test_a_grant_holds_only_while_its_condition_does(environment: str) -> None:
    whole, clock = plan_of(environment), datetime(2026, 11, 28, tzinfo=UTC)
    grant = '.google_storage_bucket_iam_member.this["records roles/storage.objectUser deploy"]'
    (place,) = [i for i, found in enumerate(whole.resources) if found["address"].endswith(grant)]

    def may(expression: str) -> bool:
        values = whole.resources[place]["values"] | {"condition": [{"title": "t", "expression": expression}]}
        made = [*whole.resources]
        made[place] = {**whole.resources[place], "values": values}
        policy = Policy(Plan(made, whole.waits_for), now=clock)
        return policy.allows(policy.plan.account("deploy"), "storage.objects.create", bucket("records"))

    assert may('request.time < timestamp("2026-12-01T00:00:00Z")')
    assert not may('request.time < timestamp("2026-11-01T00:00:00Z")')
    assert may(f"resource.name.startsWith('{PROJECT}-')")
    assert not may("resource.name.startsWith('projects/_/buckets/another')")
    assert not may("resource.matchTag('env', 'prod')"), "what the policy cannot tell lets nobody through"


def test_a_secret_whose_latest_version_is_switched_off_has_none(environment: str) -> None:
    whole = plan_of(environment)
    kind = "google_secret_manager_secret_version"
    off = [r | ({"values": r["values"] | {"enabled": False}} if r["type"] == kind else {}) for r in whole.resources]
    told = play(Plan(off, whole.waits_for), environment)
    failed = [step for step in told if step.answer]
    assert {step.account for step in failed} >= {"owner", "serving", "deploy", "sandbox"}
    for step in failed:
        assert re.fullmatch(r"gcloud secrets versions add \S+ --data-file=FILE: .*", remedy(step.answer)), step


def test_an_api_that_is_not_enabled_is_named(environment: str) -> None:
    whole = plan_of(environment)
    for found in whole.of("google_project_service"):
        failed = [step for step in play(plan_of(environment, found["address"]), environment) if step.answer]
        if found["service"] == "compute.googleapis.com":  # Vertex AI's own machines: no account of ours asks it
            assert not failed
        else:
            assert failed and f"{found['service']} has not been used" in failed[0].answer, found["service"]
            assert remedy(failed[0].answer).startswith(f"gcloud services enable {found['service']} "), failed[0]


def test_every_resource_waits_for_its_api(environment: str) -> None:
    plan = plan_of(environment)
    for resource in plan.resources:
        kind = resource["type"]
        if kind == "google_project_service":
            continue
        assert api_of(kind) in plan.apis, resource["address"]
        before = plan.order(resource["address"])
        assert "module.platform.module.apis.google_project_service.this" in before, resource["address"]


def test_a_service_waits_for_what_its_first_revision_needs(environment: str) -> None:
    plan = plan_of(environment)
    for module in ("cloud_run", "preview"):
        before = plan.order(f"module.platform.module.{module}.google_cloud_run_v2_service.this")
        for block in (
            "module.secrets.google_secret_manager_secret_version.first",
            "module.secrets.google_secret_manager_secret_iam_member.reader",
            f"module.{module}.google_secret_manager_secret_version.settings",
            f"module.{module}.google_secret_manager_secret_iam_member.settings",
            "module.storage.google_storage_bucket_iam_member.this",
        ):
            assert f"module.platform.{block}" in before, (module, block)


def test_every_secret_that_a_service_reads_has_a_version(environment: str) -> None:
    plan = plan_of(environment)
    policy = Policy(plan)
    named = [s["secret_id"] for s in plan.of("google_secret_manager_secret")]
    assert {"aidetect-api-keys", "aidetect-preview-keys"} <= set(named)
    for secret in named:
        policy.version_of(secret)
    bare = Policy(Plan([r for r in plan.resources if r["type"] != "google_secret_manager_secret_version"]))
    with pytest.raises(RefusedError, match="versions/latest"):
        bare.version_of("aidetect-api-keys")


@pytest.mark.parametrize(
    "change",
    [
        {"repository_id": "987654321"},
        {"repository_id": "987654321", "repository": "example/ai-product-photo-detector"},
        {"ref": "refs/pull/7/merge"},
        {"ref": "refs/heads/wip"},
        {"environment": "preview"},
        {"environment": None},
    ],
    ids=[
        "another repository",
        "another one under our name",
        "a pull request's own workflow",
        "another branch",
        "another environment",
        "no environment",
    ],
)
def test_nobody_else_signs_in_to_deploy(environment: str, change: dict[str, str | None]) -> None:
    policy = Policy(plan_of(environment))
    claims = {k: v for k, v in {**CLAIMS, "environment": "production", **change}.items() if v is not None}
    with pytest.raises(RefusedError):
        policy.sign_in(claims, "deploy")
    training = claims | ({"environment": "training"} if claims.get("environment") == "production" else {})
    with pytest.raises(RefusedError):
        policy.sign_in(training, "train")


@pytest.mark.parametrize("sub", ["repo:example/detector:environment:production", "repo:example@1/detector@2:ref:x"])
def test_a_job_signs_in_however_github_spells_its_subject_and_its_repository(environment: str, sub: str) -> None:
    policy = Policy(plan_of(environment))
    policy.sign_in({**CLAIMS, "sub": sub, "environment": "production", "repository": "new-owner/new-name"}, "deploy")
    assert policy.caller == policy.plan.account("deploy")


def test_a_preview_reaches_nothing_of_production(environment: str) -> None:
    plan = plan_of(environment)
    policy = Policy(plan)
    service = "service ai-product-photo-detector"
    for name in ("preview", "sandbox"):
        member = plan.account(name)
        for permission, resource in (
            ("run.services.update", service),
            ("secretmanager.versions.access", "secret aidetect-api-keys"),
            ("iam.serviceAccounts.actAs", "account aidetect-serving@example-project.iam.gserviceaccount.com"),
            ("storage.objects.create", "bucket example-project-aidetect-models"),
            ("aiplatform.models.update", "project"),
            ("run.routes.invoke", "service aidetect-mlflow"),
            ("storage.objects.list", "bucket example-project-aidetect-evidence"),
        ):
            assert not policy.allows(member, permission, resource), (name, permission)
    made = {found["name"]: found for found in plan.of("google_cloud_run_v2_service")}
    preview = made["ai-product-photo-detector-preview"]
    assert not preview["scaling"][0].get("min_instance_count")
    for found in made.values():
        assert not found["template"][0]["scaling"][0].get("min_instance_count"), "a tag would keep an instance"


def test_who_starts_runs_and_what_they_run_as_promote_nothing(environment: str) -> None:
    plan = plan_of(environment)
    policy = Policy(plan)
    for name in ("train", "pipeline"):
        for permission, resource in (
            ("run.services.update", "service ai-product-photo-detector"),
            ("run.operations.get", "project"),
            ("secretmanager.versions.access", "secret aidetect-api-keys"),
            ("iam.serviceAccounts.actAs", "account aidetect-serving@example-project.iam.gserviceaccount.com"),
            ("storage.objects.create", "bucket example-project-aidetect-records"),
            ("storage.objects.delete", "bucket example-project-aidetect-records"),
        ):
            assert not policy.allows(plan.account(name), permission, resource), (name, permission)
    (mlflow,) = [s for s in plan.of("google_cloud_run_v2_service") if s["name"] == "aidetect-mlflow"]
    said = {e["name"]: e.get("value", "") for e in mlflow["template"][0]["containers"][0]["env"]}
    roles = {role: said.get(f"MLFLOW_ACCESS_{role}", "") for role in ("WRITE", "REGISTER", "DEPLOY")}
    assert "aidetect-train@" in roles["WRITE"] and "aidetect-pipeline@" in roles["REGISTER"], roles
    assert "aidetect-deploy@" in roles["DEPLOY"] and not re.search(r"aidetect-(train|pipeline)@", roles["DEPLOY"])
    # a run that is told to deploy would fail at its last stage, after its training was paid for
    assert load_config("production", environ={}).deploy.auto is False


def test_only_a_public_service_is_asked_from_outside(environment: str) -> None:
    plan = plan_of(environment)
    everybody = [b for b in plan.bindings if b.member == "allUsers"]
    assert len(plan.of("google_monitoring_uptime_check_config")) == bool(everybody)


def test_nobody_who_is_not_signed_in_gets_anything(environment: str) -> None:
    with pytest.raises(RefusedError, match="authentication") as refused:
        Policy(plan_of(environment)).require("run.services.get", "service ai-product-photo-detector")
    assert refused.value.code == 401


def test_an_organisation_that_forbids_keys_stops_nothing(environment: str) -> None:
    Project(constraints={"iam.disableServiceAccountKeyCreation"}).apply(plan_of(environment))


def test_an_organisation_that_lets_nobody_in_stops_a_public_service_only(environment: str) -> None:
    project = Project(constraints={"iam.allowedPolicyMemberDomains"})
    if environment == "dev":
        project.apply(plan_of(environment))
        return
    with pytest.raises(RefusedError) as refused:
        project.apply(plan_of(environment))
    assert "set public = false" in fix_of(str(refused.value))


@pytest.mark.parametrize("kind", KEPT_FOR)
def test_a_deleted_name_that_is_still_kept_is_told_with_what_to_do(environment: str, kind: str) -> None:
    plan = plan_of(environment)
    (found,) = plan.of(kind)
    with pytest.raises(RefusedError) as refused:
        Project(deleted={f"{kind} {found[KEPT_FOR[kind][0]]}"}).apply(plan)
    fix = fix_of(str(refused.value))
    assert ("30 days: gcloud iam workload-identity-pools undelete" in fix) != ("for a week" in fix), refused.value
    Project(deleted={f"{kind} of-somebody-else"}).apply(plan)


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        (
            "HTTPError 409: The requested bucket name is not available. The bucket namespace is shared by all users of "
            "the system. Please select a different name and try again.",
            "somebody else has a bucket of that name",
        ),
        (
            "Error 403: The billing account for the owning project is disabled in state absent, accountDisabled",
            "gcloud billing projects link PROJECT",
        ),
        (
            "This API method requires billing to be enabled. Please enable billing on project #1, then retry.",
            "gcloud billing projects link PROJECT",
        ),
        (
            "('invalid_grant: Account disabled: 1234567', {'error': 'invalid_grant'})",
            "gcloud iam service-accounts enable EMAIL",
        ),
        (
            "Service account aidetect-train@proj.iam.gserviceaccount.com is disabled.",
            "gcloud iam service-accounts enable aidetect-train@proj.iam.gserviceaccount.com",
        ),
        (
            "Error 412: 'mars-west1' violates constraint 'constraints/gcp.resourceLocations' on 'projects/p'",
            "a policy of your organisation forbids it (constraints/gcp.resourceLocations)",
        ),
        (
            "Cloud Vision API has not been used in project 1 before or it is disabled. Enable it by visiting "
            "https://console.developers.google.com/apis/api/vision.googleapis.com/overview",
            "gcloud services enable vision.googleapis.com",
        ),
        ("Error 500: Internal error encountered.", ""),
        ("the service account was deleted; a disabled one would be kept", ""),
    ],
)
def test_what_no_grant_answers_is_told_with_what_does(said: str, fix: str) -> None:
    assert fix in fix_of(said)
    assert bool(fix_of(said)) == bool(fix)


def test_a_disabled_account_is_not_told_to_log_in_again() -> None:
    with pytest.raises(StageError, match="gcloud iam service-accounts enable") as caught, google_errors("read x"):
        raise RefreshError("invalid_grant: Account disabled: 12")
    assert "log in" not in str(caught.value)


def test_google_s_expressions() -> None:
    claims = {"repository_id": "7", "job_workflow_ref": "o/r/.github/workflows/x.yml@refs/heads/main"}
    assert cel("assertion.repository_id == '7' && assertion.job_workflow_ref.startsWith('o/r/')", claims)
    assert not cel("assertion.repository_id != '7' || assertion.repository_id == '8'", claims)
    assert cel("has(assertion.environment) ? assertion.environment : 'none'", claims) == "none"
    assert cel("assertion.job_workflow_ref.split('@')[0]", claims) == "o/r/.github/workflows/x.yml"
    with pytest.raises(KeyError):
        cel("assertion.environment", claims)


def test_the_steps_are_told_as_a_table() -> None:
    told = play(plan_of("prod"), "prod")
    assert {step.account for step in told} >= {"owner", "build", "deploy", "train", "pipeline", "preview", "serving"}
    assert [step.name for step in first_day("prod")] == [step.name for step in told]
