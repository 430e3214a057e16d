"""Deployments in the accounts that Terraform makes: what is missing is said before users notice, and nothing else."""

import re
from collections.abc import Iterator

import pytest

from components.deploy.ledger import LedgerEntry
from components.deploy.preview import champion_by_ledger, deploy_preview
from components.deploy.smoke_key import _first_key
from serving.platform.errors import StageError
from serving.registry import resolve
from tests.cloud.first_day import deploys
from tests.components.deploy.conftest import Shop
from tests.components.deploy.test_cloud_run import Cloud
from tests.fakes.cloud_run import FakeCloudRun
from tests.fakes.gcs import FakeGcs
from tests.fakes.policy import Policy, plan_of
from tests.fakes.secret_manager import FakeSecretManager
from tests.fakes.servers import BundleServers
from tests.fakes.vertex import PARENT, FakeVertex, vertex

NAMES = {"proj": "example-project", "detector": "ai-product-photo-detector"}
SECRET = "projects/proj/secrets/aidetect-api-keys"
RESOURCE = f"{PARENT}/models/detector@2"


class Account:
    """`deploy` signed in at Cloud Run, Vertex AI and Secret Manager, with all of Terraform's grants but one."""

    def __init__(self, shop: Shop, servers: BundleServers) -> None:
        self.cloud = Cloud(shop, servers)
        self.cloud.run.service.template.service_account = "aidetect-serving@example-project.iam.gserviceaccount.com"
        self.vertex = FakeVertex()
        name = f"{PARENT}/models/detector"
        aliases = {"1": ["default", "champion"], "2": ["challenger"]}
        self.vertex.models[name] = {
            number: vertex.Model(name=name, version_id=number, version_aliases=found)
            for number, found in aliases.items()
        }
        self.secrets = FakeSecretManager({SECRET: "a-key-of-decent-length"})
        self.policy = Policy(plan_of("prod"), aliases=NAMES)
        _first_key.cache_clear()

    def deploy(self, without: str = "") -> None:
        self.policy.plan = plan_of("prod", without)
        self.policy.as_account("deploy", "deploy")
        for fake in (self.cloud.run, self.vertex, self.secrets):
            fake.policy = self.policy
        version = self.cloud.shop.challenger.model_copy(update={"vertex_resource": RESOURCE})
        self.cloud.deploy(
            version,
            vertex_api_endpoint=self.vertex.url,
            secrets_api_endpoint=self.secrets.url,
            api_key_secret="aidetect-api-keys",
            request_timeout_s=60.0,
        )

    def close(self) -> None:
        for fake in (self.cloud.run, self.vertex, self.secrets):
            fake.close()


@pytest.fixture
def account(shop: Shop, servers: BundleServers) -> Iterator[Account]:
    made = Account(shop, servers)
    yield made
    made.close()


def test_the_account_has_what_a_deployment_asks_for(account: Account) -> None:
    account.deploy()
    assert account.cloud.shop.crowned == "2"
    assert account.vertex.aliases(f"{PARENT}/models/detector") == {"challenger": "2", "champion": "2", "default": "2"}
    # the table of the first day names just what the code asked for here
    policy = Policy(plan_of("prod"), aliases=NAMES)
    policy.as_account("deploy", "deploy")
    for act in deploys("prod"):
        act(policy)
    called = {(call.permission, call.resource) for call in account.policy.asked}
    assert called == {(call.permission, call.resource) for call in policy.asked}


@pytest.mark.parametrize(
    ("without", "sentence"),
    [
        ('module.iam.google_project_iam_member.custom["deploy"]', r"run\.operations\.get|aiplatform\.models"),
        ('module.cloud_run.google_cloud_run_v2_service_iam_member.deployer["deploy"]', r"run\.services\.get"),
        ('module.secrets.google_secret_manager_secret_iam_member.reader["api-keys deploy"]', r"read the API key"),
        ('module.iam.google_service_account_iam_member.acts_as["deploy serving"]', r"iam\.serviceAccounts\.actAs"),
        ('module.registry.google_artifact_registry_repository_iam_member.this["reader deploy"]', r"downloadArtifacts"),
        (
            'module.apis.google_project_service.this["run.googleapis.com"]',
            r"has not been used.*; gcloud services enable run\.goo",
        ),
    ],
)
def test_a_missing_grant_stops_it_before_users_notice(account: Account, without: str, sentence: str) -> None:
    before = dict(account.cloud.run.split)
    with pytest.raises(StageError) as said:
        account.deploy(f"module.platform.{without}")
    assert re.search(sentence, str(said.value)), said.value
    assert "rollback failed" not in str(said.value) and "\n" not in str(said.value)
    assert account.cloud.run.split == before and not account.cloud.run.pinned
    assert len(account.cloud.run.made) == 1
    assert account.cloud.shop.crowned == "1"
    assert account.vertex.aliases(f"{PARENT}/models/detector")["champion"] == "1"


def test_without_leave_to_watch_operations_nothing_is_sent(account: Account) -> None:
    account.policy.plan = plan_of("prod")
    account.vertex.fail("POST", "mergeVersionAliases", 403)
    with pytest.raises(StageError, match="move the aliases in Vertex Model Registry: 403"):
        account.deploy()
    assert account.cloud.run.updates == []
    account.vertex.faults.clear()
    account.cloud.run.fail("GET", "/operations/", 403)
    with pytest.raises(StageError, match=r"grant run\.operations\.get on the project"):
        account.deploy()
    assert account.cloud.run.updates == []


def test_a_preview_reads_the_champion_from_the_ledger_and_touches_its_own_service(
    shop: Shop, servers: BundleServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcs = FakeGcs()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    models, name = "example-project-aidetect-models", shop.champion.name
    folder = resolve(shop.champion.uri, shop.folder / "cache", shop.champion.tracking_uri).folder
    uri = f"gs://{models}/bundles/{name}/{shop.champion.bundle_digest}"
    for path in folder.rglob("*"):
        if path.is_file():
            gcs.put(f"{uri}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    line = LedgerEntry(
        who="ada", action="deploy", why="x", target="cloud_run", model=name, from_version=None, to_version="1",
        bundle_digest=shop.champion.bundle_digest, verdict=shop.champion.headline, outcome="promoted",
    )  # fmt: skip
    ledger = "gs://example-project-aidetect-records/promotions.jsonl"
    gcs.put(ledger, line.model_dump_json().encode() + b"\n")
    cloud = Cloud(shop, servers)
    cloud.run.close()
    own = "projects/proj/locations/europe-west1/services/detector-preview"
    cloud.run = FakeCloudRun(cloud.serve, {"MODEL_VERSION": "1"}, "us-docker.pkg.dev/cloudrun/container/hello", own)
    policy = Policy(plan_of("prod"), aliases={"detector-preview": "ai-product-photo-detector-preview"})
    policy.as_account("preview", "preview")
    cloud.run.policy = gcs.policy = policy
    try:
        config = cloud.config(
            ledger_path=ledger,
            image="registry/serving@sha256:" + "1" * 64,
            preview_service="detector-preview",
            request_timeout_s=60.0,
        ).for_previews()
        version = champion_by_ledger(config, name, f"gs://{models}/bundles")
        assert (version.version, version.uri) == ("1", uri)
        made = deploy_preview(version, config, "pr-7")
        assert made.version == "1" and cloud.run.environment(made.revision)["MODEL_URI"] == uri
        assert [t.tag for t in cloud.run.service.traffic if t.tag] == ["pr-7"]
        with pytest.raises(StageError, match="knows no champion of other"):
            champion_by_ledger(config, "other", f"gs://{models}/bundles")
    finally:
        cloud.run.close()
        gcs.close()
