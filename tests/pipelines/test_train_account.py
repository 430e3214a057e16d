"""A run submitted in the account that Terraform gives to the training workflow: what it may, and what it is told."""

import pytest

from tests.cloud.first_day import first_day
from tests.fakes.gcs import FakeGcs
from tests.fakes.policy import Policy, plan_of
from tests.fakes.vertex_pipelines import FakeVertexPipelines
from tests.pipelines.conftest import Aidetect
from tests.pipelines.test_cloud_checks import FakeRegistry, registry, settings, submit, tracking

__all__ = ["registry", "settings", "tracking"]  # fixtures
BUCKETS = {"bkt": "pipelines", "photos": "data", "records": "records"}
ALIASES = {
    **{name: f"example-project-aidetect-{use}" for name, use in BUCKETS.items()},
    "pipeline@proj.iam.gserviceaccount.com": "aidetect-pipeline@example-project.iam.gserviceaccount.com",
}


@pytest.fixture
def policy(cloud: FakeVertexPipelines, gcs: FakeGcs, registry: FakeRegistry) -> Policy:
    made = Policy(plan_of("prod"), aliases=ALIASES)
    made.as_account("train", "run")
    cloud.policy = gcs.policy = registry.policy = made
    return made


def test_the_account_may_submit_and_is_told_of_nothing_that_the_run_leaves_alone(
    aidetect: Aidetect, policy: Policy, settings: list[str]
) -> None:
    # as the profile says: a run ends with a challenger, and the ledger of promotions is not its business
    ran = submit(aidetect, [*settings, "deploy.auto=false"])
    assert ran.code == 0, ran.err
    assert [line for line in ran.err.splitlines() if "note: " in line] == []
    (step,) = [s for s in first_day("prod") if s.name.startswith("model-training.yml: aidetect run")]
    expected = Policy(plan_of("prod"))
    expected.as_account("train", "run")
    for act in step.acts:
        act(expected)
    asked = {(c.permission, c.resource) for c in policy.asked}
    assert asked <= {(c.permission, c.resource) for c in expected.asked}
    assert ("aiplatform.pipelineJobs.create", "project") in asked


@pytest.mark.parametrize(
    ("without", "words"),
    [
        ('iam.google_project_iam_member.this["train roles/aiplatform.user"]', "aiplatform.pipelineJobs.create"),
        ('iam.google_service_account_iam_member.acts_as["train pipeline"]', "iam.serviceAccounts.actAs"),
        (
            'apis.google_project_service.this["aiplatform.googleapis.com"]',
            "aiplatform.googleapis.com has not been used",
        ),
    ],
)
def test_a_missing_grant_is_named_in_one_line(
    aidetect: Aidetect, policy: Policy, cloud: FakeVertexPipelines, settings: list[str], without: str, words: str
) -> None:
    policy.plan = plan_of("prod", f"module.platform.module.{without}")
    ran = submit(aidetect, settings)
    assert ran.code == 1 and words in ran.err.splitlines()[-1], ran.err
    assert cloud.jobs == {}


def test_nobody_signed_in_is_refused(aidetect: Aidetect, policy: Policy, settings: list[str]) -> None:
    policy.as_account("", "run")
    ran = submit(aidetect, settings)
    assert ran.code == 1 and "no Google credentials" in ran.err
