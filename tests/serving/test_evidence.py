"""Instances share their drift windows through a bucket, and labels are kept there for the next training."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from pipelines.retrain import Evidence as Reasons
from pipelines.retrain import _labels_since, retrain
from pipelines.settings.operations import RetrainConfig
from serving.app import create_app
from serving.drift import shared
from serving.drift.store import ClosedWindow
from serving.evidence import Evidence
from serving.platform.errors import StateError
from serving.settings import Settings
from tests.bundles import jpeg
from tests.fakes.gcs import FakeGcs
from tests.fakes.policy import Policy, plan_of
from tests.serving.processes import serve
from tests.serving.test_drift import WINDOW, eventually, gauges, healthy, send, shifted

BUCKET = "gs://shop-evidence"
NAMES = {"shop-evidence": "example-project-aidetect-evidence"}


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    """The bucket as Terraform grants it, asked by the service's own account."""
    fake = FakeGcs()
    fake.policy = Policy(plan_of("prod"), aliases=NAMES)
    fake.policy.as_account("serving", "evidence")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    yield fake
    fake.close()


def instance(bundle: Path, **settings: Any) -> TestClient:
    found = Settings(
        model_uri=str(bundle),
        evidence_uri=BUCKET,
        rate_limit_enabled=False,
        drift_window=WINDOW,
        drift_min_n=50,
        slots=1,
    )
    return TestClient(create_app(found.model_copy(update=settings)))


@contextmanager
def process(bundle: Path, gcs: FakeGcs, folder: Path) -> Iterator[httpx.Client]:
    """A server of its own that is told by its environment alone where the evidence lies; it listens each second."""
    folder.mkdir()
    env = {
        "EVIDENCE_URI": BUCKET,
        "STORAGE_EMULATOR_HOST": gcs.url,
        "FEEDBACK_DIR": str(folder / "labels"),
        "DRIFT_WINDOW": str(WINDOW),
        "DRIFT_MIN_N": "50",
        "DRIFT_MAX_AGE_S": "100",
        "SLOTS": "1",
    }
    with serve(bundle, folder / "log", **env) as server:
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            yield client
        assert server.terminate() == 0


def alert(client: httpx.Client) -> float:
    return gauges(client)["aidetect_drift_alert"]


def standing(client: httpx.Client) -> tuple[Any, Any]:
    said = client.get("/drift").json()
    return said["state"], said["signals"]


def test_shifted_traffic_on_one_of_two_instances_is_one_alarm_and_one_dispatch(
    gcs: FakeGcs, toy_bundle: Path, tmp_path: Path
) -> None:
    config = RetrainConfig(state_path=str(tmp_path / "retrain.jsonl"))
    dispatched: list[str] = []

    class Run:
        run_id, status = "me/detector@now", "dispatched"

    def start(reason: str, explanation: str) -> Run:
        dispatched.append(f"{reason}: {explanation}")
        return Run()

    with (
        process(toy_bundle, gcs, tmp_path / "moved") as moved,
        process(toy_bundle, gcs, tmp_path / "calm") as calm,
    ):
        levels = []
        for seed in (100, 200, 300):
            send(moved, shifted(WINDOW, seed=seed))
            send(calm, healthy(WINDOW, seed=seed))
            found = standing(moved)
            # the other one says the same a second later; it is well itself, which is no all-clear
            assert eventually(lambda: standing(calm), found, 60) == found
            assert alert(calm) == alert(moved)
            levels.append(alert(moved))
            for client in (moved, calm):
                drift = client.get("/drift").json()
                reasons = Reasons(drift_state=drift["state"], diagnosis=drift["diagnosis"], model_version="1")
                retrain(config, reasons, start)
        assert levels == [1, 2, 2]
        for client in (moved, calm):
            said = client.post("/predict", files={"file": ("x.jpg", jpeg(225), "image/jpeg")}).json()
            label = {"request_id": said["request_id"], "label": "real"}
            assert client.post("/feedback", json=label).json()["status"] == "recorded"
    assert len(dispatched) == 1 and "alarm on version 1" in dispatched[0]
    assert _labels_since(f"{BUCKET}/labels/", 0.0) == 2


def test_what_another_instance_wrote_is_judged_and_old_words_are_forgotten(gcs: FakeGcs) -> None:
    now = [1_800_000_000.0]
    mine = shared.SharedWindows(Evidence(BUCKET), 3600.0, 0.0, lambda: now[0])
    stamp = f"{int(now[0] * 1000):014d}"
    for i, content in enumerate([b"no json", b"[]", b'{"result": {}}', b"x" * 300_000]):
        gcs.put(f"{BUCKET}/drift/1/{stamp}-other-{i}.json", content)
    own = [ClosedWindow(1, now[0], now[0], 60, True, {"moved": [], "diagnosis": "", "signals": {}})]
    assert mine.listen("1") and mine.worst(own) == own
    for i in range(2):
        window = (
            f'{{"opened": 1, "closed": {now[0]}, "n": 60, "drifted": true, '
            '"result": {"moved": [], "diagnosis": "d", "signals": {}}}'
        )
        gcs.put(f"{BUCKET}/drift/1/{stamp}-third-{i}.json", window.encode())
    assert mine.listen("1") and [w.drifted for w in mine.worst(own)] == [True, True]
    now[0] += 3 * 3600  # that instance is gone
    assert mine.listen("1") and mine.worst(own) == own
    mine.tell("1", own[0])
    gcs.fail("upload", 403, 1)
    with pytest.raises(StateError, match="EVIDENCE_URI=gs://shop-evidence: cannot add drift/1/"):
        mine.listen("1")
    mine.listen("1")  # what was not sent is sent the next time
    assert sum("third" not in key and "other" not in key for key in gcs.objects) == 1


def test_an_instance_s_windows_are_counted_with_its_successor_s(gcs: FakeGcs) -> None:
    def window(opened: float, closed: float, drifted: bool) -> ClosedWindow:
        return ClosedWindow(1, opened, closed, 60, drifted, {"moved": [], "diagnosis": "", "signals": {}})

    def opened(instance_: shared.SharedWindows, *own: ClosedWindow) -> list[float]:
        return [window.opened for window in instance_.worst([*own])]

    now = 1_800_000_000.0
    one, two, other = (shared.SharedWindows(Evidence(BUCKET), 3600.0, 0.0, lambda: now) for _ in range(3))
    first, second = window(now - 100, now - 50, True), window(now - 40, now, True)
    one.tell("1", first)
    one.listen("1")  # and is no more
    calm, beside = window(now - 90, now - 45, False), window(now - 60, now, True)
    for instance_, own in ((two, second), (other, calm)):
        instance_.tell("1", own)
        instance_.listen("1")
    for instance_, own in ((two, second), (other, calm)):
        assert instance_.listen("1") is (instance_ is two)
        assert opened(instance_, own) == [second.opened, first.opened], "what one says, all say"
    # what went on at the same time is no succession: each moved once
    assert opened(two, beside) == [beside.opened]
    fresh = shared.SharedWindows(Evidence(BUCKET), 3600.0, 0.0, lambda: now)
    fresh.listen("1")
    assert opened(fresh) == [second.opened, first.opened]


def test_an_alarm_rises_though_every_instance_that_saw_the_traffic_has_ended(gcs: FakeGcs, toy_bundle: Path) -> None:
    for seed in (100, 200):  # fewer than a window has, and then the instance is stopped
        with instance(toy_bundle) as client:
            send(client, shifted(WINDOW - 5, seed=seed))
    assert sum("/drift/" in key for key in gcs.objects) == 2
    with instance(toy_bundle) as client:
        assert client.get("/drift").json()["state"] == "alarm"


def test_labels_outlive_the_instance_and_count_for_the_next_training(
    gcs: FakeGcs, toy_bundle: Path, tmp_path: Path
) -> None:
    with instance(toy_bundle, feedback_dir=tmp_path / "gone", feedback_keep_images=True) as client:
        ids = []
        for level in (225, 25):
            said = client.post("/predict", files={"file": ("x.jpg", jpeg(level), "image/jpeg")}).json()
            ids.append(said["request_id"])
        for label in ("real", "ai_generated"):  # the second time it is a correction
            assert client.post("/feedback", json={"request_id": ids[0], "label": label}).status_code == 200
        gcs.fail("upload", 403, 1)
        answer = client.post("/feedback", json={"request_id": ids[1], "label": "real"})
        assert answer.status_code == 503 and "the bucket did not take it" in answer.text and "shop" not in answer.text
        assert client.post("/feedback", json={"request_id": ids[1], "label": "real"}).json()["status"] == "recorded"
    assert sum(key.startswith("shop-evidence/images/") for key in gcs.objects) == 2
    assert gcs.policy is not None
    gcs.policy.as_account("train", "weekly")
    assert _labels_since(f"{BUCKET}/labels/", 0.0) == 2
    assert _labels_since(f"{BUCKET}/labels/", 4_000_000_000.0) == 0


@pytest.mark.parametrize(
    ("grant", "permission", "role"),
    [
        ('service["roles/storage.objectCreator"]', "storage.objects.create", "roles/storage.objectCreator"),
        ('service["roles/storage.objectViewer"]', "storage.objects.list", "roles/storage.objectViewer"),
    ],
)
def test_a_missing_grant_is_named_with_its_role(gcs: FakeGcs, grant: str, permission: str, role: str) -> None:
    without = f"module.platform.module.retrain.google_storage_bucket_iam_member.{grant}"
    policy = Policy(plan_of("prod", without), aliases=NAMES)
    policy.as_account("serving", "evidence")
    gcs.policy = policy
    windows = shared.SharedWindows(Evidence(BUCKET), 3600.0, 0.0)
    windows.tell("1", ClosedWindow(1, 0.0, 0.0, 60, True, {"moved": [], "diagnosis": "", "signals": {}}))
    with pytest.raises(StateError, match=f"'{permission}' denied.*; grant {role} to the account that calls") as said:
        windows.listen("1")
    assert "\n" not in str(said.value)


def test_a_label_finds_its_answer_whatever_instance_it_reaches(gcs: FakeGcs, toy_bundle: Path, tmp_path: Path) -> None:
    with process(toy_bundle, gcs, tmp_path / "0") as judged, process(toy_bundle, gcs, tmp_path / "1") as asked:
        files = [("files", (f"{level}.jpg", jpeg(level), "image/jpeg")) for level in (225, 25)]
        said = judged.post("/predict/batch", files=files).json()
        told = {"request_id": said["request_id"], "item": 1, "label": "ai_generated"}

        def tell(server: httpx.Client, **changes: Any) -> httpx.Response:
            return server.post("/feedback", json=told | changes)

        answers = [tell(asked)]
        while answers[-1].status_code == 503 and len(answers) < 200:  # not in the bucket yet
            assert "not shared yet; send it again" in answers[-1].text
            time.sleep(0.25)
            answers.append(tell(asked))
        assert answers[-1].json() == {
            **told,
            "status": "recorded",
            "prediction": "real",
            "correct": False,
            "probability": pytest.approx(said["results"][1]["probability"]),
            "model_version": said["model_version"],
        }
        # the instance that answered knows of it, and the other one of its correction
        again = [tell(judged).json(), tell(judged, label="real").json()]
        assert [receipt["status"] for receipt in again] == ["unchanged", "corrected"]
        assert tell(asked, label="real").json()["status"] == "unchanged"
        assert tell(asked, item=7).status_code in (404, 503)
        assert tell(asked, request_id="0" * 32).status_code == 404
    assert _labels_since(f"{BUCKET}/labels/", 0.0) == 1
    kept = b"".join(content for key, content in gcs.objects.items() if "/answers/" in key)
    assert said["request_id"].encode() in kept and b".jpg" not in kept
