"""Vertex endpoints through Google's own clients: tried beside the users, split, promoted, and the way back."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from google.cloud import aiplatform_v1 as vertex

from components.artifacts.deployment import Deployment
from components.artifacts.model_version import ModelVersion
from components.deploy import ledger
from components.deploy.config import DeployConfig
from components.deploy.promotion import Reason, deploy_version
from components.deploy.rollout import shrunk
from serving.platform.errors import StageError
from tests.components.deploy.conftest import Shop
from tests.fakes.servers import BundleServers
from tests.fakes.vertex import PARENT, FakeVertex, parse

MODEL = f"{PARENT}/models/detector"
USERS, TRIAL = f"{PARENT}/endpoints/11", f"{PARENT}/endpoints/22"


@dataclass
class Cloud:
    """Model versions 1 (default, deployed for users as id 7) and 2 (challenger), on two endpoints."""

    shop: Shop
    servers: BundleServers
    answers: dict[str, tuple[Path, str] | str] = field(default_factory=dict)
    """Model version -> what really answers for it."""

    def __post_init__(self) -> None:
        self.api = FakeVertex(self.serve)
        old = vertex.Model(name=MODEL, version_id="1", version_aliases=["default", "champion"])
        new = vertex.Model(name=MODEL, version_id="2", version_aliases=["challenger"])
        self.api.models[MODEL] = {"1": old, "2": new}
        serving = vertex.DeployedModel(id="7", model=f"{MODEL}@1")
        self.api.endpoints[USERS] = vertex.Endpoint(name=USERS, deployed_models=[serving], traffic_split={"7": 100})
        self.api.endpoints[TRIAL] = vertex.Endpoint(name=TRIAL)
        self.candidate = self.shop.challenger.model_copy(update={"vertex_resource": f"{MODEL}@2"})

    def serve(self, model: str) -> str:
        version = model.rpartition("@")[2]
        told = self.answers.get(version, (self.shop.bundles[version], version))
        return told if isinstance(told, str) else self.servers.url(*told)

    def deploy(self, version: ModelVersion | None = None, **changes: object) -> Deployment:
        values = {
            "target": "vertex_endpoint",
            "project": "proj",
            "region": "europe-west1",
            "endpoint": "11",
            "smoke_endpoint": "22",
            "machine_type": "n1-standard-4",
            "accelerator_type": "NVIDIA_TESLA_T4",
            "accelerator_count": 1,
            "service_account": "serving@proj.iam.gserviceaccount.com",
            "vertex_api_endpoint": self.api.url,
            "ledger_path": self.shop.ledger_path,
            "canary_hold_s": 0.0,
            "smoke_timeout_s": 20.0,
            "retry_timeout_s": 2.0,
        }
        return deploy_version(
            version or self.candidate, DeployConfig.model_validate(values | changes), Reason("ada", "x")
        )

    def sent(self, verb: str) -> list[dict[str, object]]:
        return [request.body for request in self.api.requests if request.path.endswith(verb)]


@pytest.fixture
def cloud(shop: Shop, servers: BundleServers) -> Iterator[Cloud]:
    made = Cloud(shop, servers)
    yield made
    made.api.close()


def assert_as_before(cloud: Cloud, reason: str) -> None:
    users, trial = cloud.api.endpoints[USERS], cloud.api.endpoints[TRIAL]
    assert dict(users.traffic_split) == {"7": 100}
    assert [model.id for model in users.deployed_models] == ["7"]
    assert list(trial.deployed_models) == []
    assert cloud.api.aliases(MODEL) == {"default": "1", "champion": "1", "challenger": "2"}
    assert cloud.shop.crowned == "1"
    (entry,) = cloud.shop.ledger
    assert (entry.outcome, entry.target) == ("rolled_back", "vertex_endpoint")
    assert reason in entry.reason


def test_tried_beside_the_users_then_split_then_promoted(cloud: Cloud) -> None:
    cloud.deploy()
    trial, users = (parse(vertex.DeployModelRequest, body) for body in cloud.sent(":deployModel"))
    assert dict(trial.traffic_split) == {"0": 100}
    assert dict(users.traffic_split) == {"7": 100, "0": 0}
    for body in (trial, users):
        assert body.deployed_model.model == f"{MODEL}@2"
        assert body.deployed_model.service_account == "serving@proj.iam.gserviceaccount.com"
        resources = body.deployed_model.dedicated_resources
        assert (resources.min_replica_count, resources.max_replica_count) == (1, 2)
        assert resources.machine_spec.machine_type == "n1-standard-4"
        assert resources.machine_spec.accelerator_type == vertex.AcceleratorType.NVIDIA_TESLA_T4
        assert resources.machine_spec.accelerator_count == 1
    splits = [r.body["trafficSplit"] for r in cloud.api.requests if r.method == "PATCH"]
    (new,) = (model.id for model in cloud.api.endpoints[USERS].deployed_models)
    assert splits == [{"7": 90, new: 10}, {"7": 0, new: 100}]
    assert dict(cloud.api.endpoints[USERS].traffic_split) == {new: 100}
    assert list(cloud.api.endpoints[TRIAL].deployed_models) == []
    assert cloud.api.aliases(MODEL) == {"default": "2", "champion": "2", "challenger": "2"}
    assert cloud.shop.crowned == "2"
    assert cloud.shop.ledger[-1].outcome == "promoted"


def test_first_deployment_takes_all_traffic_of_an_empty_endpoint(cloud: Cloud) -> None:
    cloud.api.endpoints[USERS] = vertex.Endpoint(name=USERS)
    cloud.deploy()
    (split,) = cloud.api.endpoints[USERS].traffic_split.values()
    assert split == 100


def test_inverted_labels_never_reach_users(cloud: Cloud, inverted_bundle: Path) -> None:
    cloud.answers["2"] = (inverted_bundle, "2")
    with pytest.raises(StageError, match="labels are inverted"):
        cloud.deploy()
    assert len(cloud.sent(":deployModel")) == 1
    assert_as_before(cloud, "labels are inverted")


def test_previous_version_answering_is_rolled_back(cloud: Cloud) -> None:
    cloud.answers["2"] = (cloud.shop.bundles["1"], "1")
    with pytest.raises(StageError, match="version 1 answers, expected 2"):
        cloud.deploy()
    assert_as_before(cloud, "version 1 answers")


def test_container_that_answers_500_is_rolled_back(cloud: Cloud, answering_500: str) -> None:
    cloud.answers["2"] = answering_500
    with pytest.raises(StageError, match="endpoint 22 answered 500"):
        cloud.deploy()
    assert_as_before(cloud, "answered 500")


@pytest.mark.parametrize(
    ("method", "part", "code", "said"),
    [
        ("POST", "22:deployModel", 403, "deploy to endpoint 22: 403"),
        ("POST", "11:deployModel", 429, "deploy to endpoint 11: 429 .*quota"),
        ("POST", "11:deployModel", 409, "deploy to endpoint 11: 409 .*somebody else"),
        ("GET", "endpoints/11", 404, "read endpoint 11: 404 .*check project"),
        ("GET", "/operations/1$", 404, "deploy to endpoint 22: 404"),
        ("GET", "/operations/2$", 404, "deploy to endpoint 11: 404"),
        ("POST", ":mergeVersionAliases", 403, "move the aliases in Vertex Model Registry: 403"),
    ],
)
def test_refusals_leave_everything(cloud: Cloud, method: str, part: str, code: int, said: str) -> None:
    cloud.api.fail(method, part, code, times=1)
    with pytest.raises(StageError, match=said):
        cloud.deploy()
    assert_as_before(cloud, str(code))


@pytest.mark.parametrize("part", ["22:deployModel", "11:deployModel"], ids=["trial", "users"])
@pytest.mark.parametrize("carried_out", [True, False], ids=["after", "before"])
def test_a_cut_network_gives_all_back(cloud: Cloud, part: str, carried_out: bool) -> None:
    cloud.api.cut("POST", part, carried_out)
    with pytest.raises(StageError, match="check the network"):
        cloud.deploy()
    assert_as_before(cloud, "check the network")


def test_silence_is_rolled_back_in_time(cloud: Cloud, silent: str) -> None:
    cloud.answers["2"], cloud.api.patience_s = silent, 0.5
    with pytest.raises(StageError, match="504") as caught:
        cloud.deploy(smoke_timeout_s=2.0)
    assert "\n" not in str(caught.value)
    assert_as_before(cloud, "504")


def test_busy_api_is_asked_again_where_that_is_safe(cloud: Cloud) -> None:
    cloud.api.fail("GET", "endpoints/", 503, times=2)
    cloud.api.fail("PATCH", "endpoints/", 429, times=1)
    cloud.deploy()
    assert cloud.shop.crowned == "2"
    assert len(cloud.sent(":deployModel")) == 2


def test_ledger_failing_at_the_last_step_gives_all_back(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    write = ledger.Ledger.append

    def full_for_promotions(book: ledger.Ledger, entry: ledger.LedgerEntry) -> None:
        if entry.outcome == "promoted":
            raise StageError("the disk is full")
        write(book, entry)

    monkeypatch.setattr(ledger.Ledger, "append", full_for_promotions)
    with pytest.raises(StageError, match="the disk is full"):
        cloud.deploy()
    assert_as_before(cloud, "the disk is full")


def test_version_outside_vertex_is_refused(cloud: Cloud) -> None:
    with pytest.raises(StageError, match=r"register.vertex true"):
        cloud.deploy(cloud.shop.challenger)
    assert_as_before(cloud, "not in Vertex Model Registry")


def test_model_that_cannot_be_undeployed_does_not_undo_the_promotion(cloud: Cloud) -> None:
    cloud.api.fail("POST", "11:undeployModel", 403)
    cloud.deploy()
    assert cloud.shop.crowned == "2"
    assert cloud.api.endpoints[USERS].traffic_split["7"] == 0


@pytest.mark.parametrize("total", [0, 1, 50, 90, 99, 100])
@pytest.mark.parametrize("split", [{"a": 100}, {"a": 33, "b": 33, "c": 34}, {"a": 1, "b": 99}])
def test_shares_add_up(split: dict[str, int], total: int) -> None:
    shares = shrunk(split, total)
    assert sum(shares.values()) == total
    assert min(shares.values()) >= 0
