"""Cloud Run through Google's own client over REST, against a service on loopback whose revisions are real servers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.cloud import run_v2
from google.protobuf import json_format

from components.artifacts.deployment import Deployment
from components.artifacts.model_version import CHAMPION, ModelVersion
from components.deploy import promotion
from components.deploy.config import DeployConfig
from components.deploy.promotion import Reason, deploy_version
from serving.platform.errors import StageError
from tests.components.deploy.conftest import Shop
from tests.fakes.cloud_run import FakeCloudRun
from tests.fakes.gcs import FakeGcs
from tests.fakes.google_rest import Request
from tests.fakes.servers import BundleServers

REASON = Reason("ada", "better on tools")


class Cloud:
    """The fake service and how its revisions behave."""

    def __init__(self, shop: Shop, servers: BundleServers) -> None:
        self.shop, self.servers = shop, servers
        self.answers: dict[str, tuple[Path, str] | str] = {}
        """Version -> what really answers for it: another bundle and version, or an address."""
        self.run = FakeCloudRun(self.serve, {"MODEL_URI": shop.champion.uri, "MODEL_VERSION": "1", "LOG_LEVEL": "info"})

    def serve(self, environment: dict[str, str]) -> str:
        version = environment["MODEL_VERSION"]
        told = self.answers.get(version, (self.shop.bundles[version], version))
        return told if isinstance(told, str) else self.servers.url(*told)

    def config(self, **changes: object) -> DeployConfig:
        values = {
            "target": "cloud_run",
            "project": "proj",
            "region": "europe-west1",
            "service": "detector",
            "run_api_endpoint": self.run.url,
            "ledger_path": self.shop.ledger_path,
            "canary_hold_s": 0.0,
            "smoke_timeout_s": 20.0,
            "traffic_settle_s": 3.0,
            # the fake starts a real server within the update
            "request_timeout_s": 60.0,
            "retry_timeout_s": 3.0,
        }
        return DeployConfig.model_validate(values | changes)

    def deploy(self, version: ModelVersion | None = None, **changes: object) -> Deployment:
        return deploy_version(version or self.shop.challenger, self.config(**changes), REASON)


@pytest.fixture
def cloud(shop: Shop, servers: BundleServers) -> Iterator[Cloud]:
    made = Cloud(shop, servers)
    yield made
    made.run.close()


def traffic(request: Request) -> list[dict[str, object]]:
    """Traffic of an update's body, through Google's proto."""
    service = run_v2.Service(json_format.ParseDict(request.body, run_v2.Service.pb(run_v2.Service())))
    return [
        {"revision": t.revision, "percent": t.percent, "tag": t.tag, "latest": t.type_.name.endswith("LATEST")}
        for t in service.traffic
    ]


def test_new_revision_is_tried_without_users_then_canaried_then_promoted_and_unpinned(cloud: Cloud) -> None:
    old = cloud.run.made[0]
    image = "registry/serving@sha256:" + "1" * 64
    done = cloud.deploy(image=image)

    make, canary, whole = cloud.run.updates
    new = cloud.run.made[-1]
    held = {"revision": old, "percent": 100, "tag": "", "latest": False}
    # named by Cloud Run: a name in the template would refuse whoever changes it next
    assert "revision" not in make.body["template"]
    assert traffic(make) == [held, {"revision": "", "percent": 0, "tag": "candidate", "latest": True}]
    assert make.query["updateMask"] == "template,traffic"
    assert traffic(canary) == [
        {**held, "percent": 90},
        {"revision": new, "percent": 10, "tag": "candidate", "latest": False},
    ]
    assert canary.query["updateMask"] == "traffic"
    assert traffic(whole) == [{"revision": "", "percent": 100, "tag": "", "latest": True}]

    container = make.body["template"]["containers"][0]
    assert container["image"] == image
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment == {
        "LOG_LEVEL": "info",
        "MODEL_URI": cloud.shop.challenger.uri,
        "MODEL_VERSION": "2",
        "MODEL_DIGEST": cloud.shop.challenger.bundle_digest,
        "MLFLOW_TRACKING_URI": cloud.shop.context.tracking_uri,
    }
    assert cloud.run.split == {new: 100}
    assert not cloud.run.pinned
    assert cloud.shop.crowned == "2"
    assert done.url == cloud.servers.url(cloud.shop.bundles["2"], "2")
    (entry,) = cloud.shop.ledger
    assert (entry.who, entry.why, entry.from_version, entry.to_version) == ("ada", "better on tools", "1", "2")
    assert (entry.outcome, entry.target, entry.verdict) == ("promoted", "cloud_run", cloud.shop.challenger.headline)


def assert_as_before(cloud: Cloud, reason: str) -> None:
    """Champion, traffic and its pinning as before; the ledger says why."""
    assert cloud.shop.crowned == "1"
    (serving,) = cloud.run.split
    assert cloud.run.split == {serving: 100}
    assert cloud.run.environment(serving)["MODEL_VERSION"] == "1"
    assert not cloud.run.pinned
    # whatever is deployed next starts from what serves, not from the failed attempt
    assert cloud.run.environment(cloud.run.made[-1])["MODEL_VERSION"] == "1"
    (entry,) = cloud.shop.ledger
    assert entry.outcome == "rolled_back"
    assert reason in entry.reason


def test_inverted_labels_are_rolled_back(cloud: Cloud, inverted_bundle: Path) -> None:
    cloud.answers["2"] = (inverted_bundle, "2")
    with pytest.raises(StageError, match="labels are inverted"):
        cloud.deploy()
    assert_as_before(cloud, "labels are inverted")


def test_previous_version_answering_is_rolled_back(cloud: Cloud) -> None:
    cloud.answers["2"] = (cloud.shop.bundles["1"], "1")
    with pytest.raises(StageError, match="version 1 answers, expected 2"):
        cloud.deploy()
    assert_as_before(cloud, "version 1 answers, expected 2")


def test_other_model_under_the_right_version_is_rolled_back(cloud: Cloud) -> None:
    cloud.answers["2"] = (cloud.shop.bundles["1"], "2")
    with pytest.raises(StageError, match=r"golden/.* expected"):
        cloud.deploy()
    assert_as_before(cloud, "expected")


def test_service_that_answers_500_is_rolled_back(cloud: Cloud, answering_500: str) -> None:
    cloud.answers["2"] = answering_500
    with pytest.raises(StageError, match="answered 500"):
        cloud.deploy()
    assert_as_before(cloud, "answered 500")


def test_silence_is_rolled_back_in_time(cloud: Cloud, silent: str) -> None:
    cloud.answers["2"] = silent
    with pytest.raises(StageError, match="no answer"):
        cloud.deploy(smoke_timeout_s=1.0, request_timeout_s=0.5)
    assert_as_before(cloud, "no answer")


def test_a_canary_that_breaks_gives_all_traffic_back(cloud: Cloud, answering_500: str) -> None:
    breaks_at = {"split": 0}
    serve = cloud.run.serve

    def serve_until_canary(environment: dict[str, str]) -> str:
        shared = any(t.percent not in (0, 100) for t in cloud.run.service.traffic)
        breaks_at["split"] += shared
        return answering_500 if shared else serve(environment)

    cloud.run.serve = serve_until_canary
    with pytest.raises(StageError, match="answered 500"):
        cloud.deploy()
    assert breaks_at["split"]
    assert_as_before(cloud, "answered 500")


@pytest.mark.parametrize("code", [403, 404, 429])
def test_refused_update_leaves_everything(cloud: Cloud, code: int) -> None:
    cloud.run.fail("PATCH", "/services/", code)
    with pytest.raises(StageError, match=rf"make the new revision of Cloud Run service detector: .*{code}"):
        cloud.deploy(retry_timeout_s=0.5)
    cloud.run.faults.clear()
    assert_as_before(cloud, str(code))
    assert len(cloud.run.made) == 1


@pytest.mark.parametrize(
    ("operation", "code", "said"),
    [
        ("/operations/1$", 404, "404"),
        # the token ended while the update was waited for, and there is none to take its place
        ("/operations/2$", 401, "no Google credentials; run: gcloud auth"),
        ("/operations/3$", 404, "404"),
    ],
)
def test_lost_answer_of_any_update_gives_all_back(cloud: Cloud, operation: str, code: int, said: str) -> None:
    cloud.run.fail("GET", operation, code, times=1)
    with pytest.raises(StageError, match=said):
        cloud.deploy()
    assert_as_before(cloud, said)


def test_rollback_that_fails_too_tells_both(cloud: Cloud) -> None:
    cloud.answers["2"] = (cloud.shop.bundles["1"], "1")
    cloud.run.faults.append((lambda r: r.method == "PATCH" and r.query["updateMask"] == "traffic", 403, -1))
    with pytest.raises(StageError, match=r"version 1 answers.* rollback failed too, see to it by hand: .*403"):
        cloud.deploy()
    assert cloud.shop.crowned == "1"
    assert cloud.run.environment(next(iter(cloud.run.split)))["MODEL_VERSION"] == "1"
    assert "rollback failed too" in cloud.shop.ledger[-1].reason


def test_missing_service_is_one_line_and_changes_nothing(cloud: Cloud) -> None:
    with pytest.raises(StageError, match="read Cloud Run service other: 404") as caught:
        cloud.deploy(service="other")
    assert "\n" not in str(caught.value)
    assert cloud.run.updates == []
    assert_as_before(cloud, "404")


def test_no_credentials_change_nothing(cloud: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nobody = tmp_path / "nobody.json"
    nobody.write_text("{}")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(nobody))
    with pytest.raises(StageError, match="no Google credentials; run: gcloud auth") as caught:
        cloud.deploy(run_api_endpoint="")
    assert "\n" not in str(caught.value)
    assert cloud.run.requests == []
    assert_as_before(cloud, "no Google credentials")


@pytest.mark.parametrize("carried_out", [True, False], ids=["after", "before"])
def test_a_cut_network_gives_all_back(cloud: Cloud, carried_out: bool) -> None:
    cloud.run.cut("PATCH", "/services/", carried_out)
    with pytest.raises(StageError, match="check the network"):
        cloud.deploy()
    assert_as_before(cloud, "check the network")


def test_a_ledger_in_a_bucket_that_refuses_stops_before_anything(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    gcs = FakeGcs()
    try:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        gcs.fail("promotions.jsonl", 403)
        with pytest.raises(StageError, match=r"gs://records/promotions\.jsonl: 403"):
            cloud.deploy(ledger_path="gs://records/promotions.jsonl")
        gcs.faults.clear()
        # readable but not writable: known only at the end, when the traffic has moved; all of it goes back
        gcs.fail("/upload/", 403)
        with pytest.raises(StageError, match="403"):
            cloud.deploy(ledger_path="gs://records/promotions.jsonl")
        assert gcs.objects == {}
    finally:
        gcs.close()
    assert cloud.shop.crowned == "1"
    (serving,) = cloud.run.split
    assert cloud.run.environment(serving)["MODEL_VERSION"] == "1"
    assert not cloud.run.pinned


@pytest.mark.parametrize("code", [429, 503])
def test_busy_api_is_asked_again(cloud: Cloud, code: int) -> None:
    cloud.run.fail("PATCH", "/services/", code, times=2)
    cloud.run.fail("GET", "/services/", code, times=1)
    cloud.deploy()
    assert cloud.shop.crowned == "2"
    assert len(cloud.run.made) == 2


def test_change_by_somebody_else_stops_the_rollout(cloud: Cloud) -> None:
    cloud.run.fail("PATCH", "/services/", 409, times=1)
    with pytest.raises(StageError, match="somebody else changed it"):
        cloud.deploy()
    assert_as_before(cloud, "409")


def test_champion_moved_by_somebody_else_meanwhile_is_not_overwritten(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay = vars(promotion)["smoke"]

    def move_then_replay(*arguments: Any) -> Any:
        cloud.shop.registry.point(CHAMPION, None)
        return replay(*arguments)

    monkeypatch.setattr(promotion, "smoke", move_then_replay)
    with pytest.raises(StageError, match="champion changed from 1 to None meanwhile"):
        cloud.deploy()
    assert cloud.shop.crowned is None
    (serving,) = cloud.run.split
    assert cloud.run.environment(serving)["MODEL_VERSION"] == "1"


def test_a_split_by_name_comes_back_as_it_was(cloud: Cloud) -> None:
    old = cloud.run.made[0]
    cloud.run.service.traffic = [run_v2.TrafficTarget(revision=old, percent=100, type_=2)]
    cloud.run._settle()
    cloud.answers["2"] = (cloud.shop.bundles["1"], "1")
    with pytest.raises(StageError, match="version 1 answers"):
        cloud.deploy()
    assert cloud.run.split == {old: 100}
    assert cloud.run.pinned


def test_version_in_cloud_storage_is_served_from_there(cloud: Cloud) -> None:
    cloud.deploy(cloud.shop.challenger.model_copy(update={"bundle_uri": "gs://models/bundles/2"}))
    environment = cloud.run.environment(cloud.run.made[-1])
    assert environment == {
        "LOG_LEVEL": "info",
        "MODEL_URI": "gs://models/bundles/2",
        "MODEL_VERSION": "2",
        "MODEL_DIGEST": cloud.shop.challenger.bundle_digest,
    }


def test_bodies_hold_no_secret(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIDETECT_API_KEY", "s3cret")
    cloud.deploy()
    assert "s3cret" not in json.dumps([request.body for request in cloud.run.requests])
    assert "s3cret" not in Path(cloud.shop.ledger_path).read_text()
