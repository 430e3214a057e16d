"""Instances share their drift windows through a bucket, and labels are kept there for the next training."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

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
from tests.serving.test_drift import WINDOW, healthy, send, shifted

BUCKET = "gs://shop-evidence"


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    fake = FakeGcs()
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


def alert(client: TestClient) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith("aidetect_drift_alert")))


def test_shifted_traffic_on_one_of_two_instances_is_one_alarm_and_one_dispatch(
    gcs: FakeGcs, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "LISTEN_EVERY_S", 0.0)
    config = RetrainConfig(state_path=str(tmp_path / "retrain.jsonl"))
    dispatched: list[str] = []

    class Run:
        run_id, status = "me/detector@now", "dispatched"

    def start(reason: str, explanation: str) -> Run:
        dispatched.append(f"{reason}: {explanation}")
        return Run()

    with ExitStack() as stack:
        # `send` takes the client of a server process as well
        moved, calm = (cast("Any", stack.enter_context(instance(toy_bundle))) for _ in range(2))
        send(calm, healthy(WINDOW, seed=1))
        send(moved, shifted(WINDOW, seed=100))
        levels = []
        for seed in (200, 300):
            told = [client.get("/drift").json() for client in (moved, calm)]
            assert told[0]["state"] == told[1]["state"] and told[0]["signals"] == told[1]["signals"]
            levels += [alert(moved), alert(calm)]
            send(moved, shifted(WINDOW, seed=seed))
            send(calm, healthy(WINDOW, seed=seed))
            for client in (moved, calm):
                drift = client.get("/drift").json()
                levels.append(alert(client))
                reasons = Reasons(drift_state=drift["state"], diagnosis=drift["diagnosis"], model_version="1")
                retrain(config, reasons, start)
        # up once, and it stays: an instance that is well is no all-clear for the other
        assert levels == [1, 1, 2, 2, 2, 2, 2, 2]
    assert len(dispatched) == 1 and "alarm on version 1" in dispatched[0]


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
    assert _labels_since(f"{BUCKET}/labels/", 0.0) == 2
    assert _labels_since(f"{BUCKET}/labels/", 4_000_000_000.0) == 0
