"""True labels through POST /feedback: joined to their predictions, kept append-only, shown as precision and recall."""

import hashlib
import json
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.bundles import jpeg

BRIGHT, DARK = jpeg(225), jpeg(25)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "feedback"


def serve(bundle: Path, folder: Path | None, **settings: Any) -> TestClient:
    found = Settings(model_uri=str(bundle), feedback_dir=folder, rate_limit_enabled=False, **settings)
    return TestClient(create_app(found))


@pytest.fixture
def client(toy_bundle: Path, folder: Path) -> Iterator[TestClient]:
    with serve(toy_bundle, folder) as found:
        yield found


def predict(client: TestClient, data: bytes) -> dict[str, Any]:
    answer = client.post("/predict", files={"file": ("x.jpg", data, "image/jpeg")})
    assert answer.status_code == 200
    return answer.json()


def metric(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name)))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "feedback.jsonl").read_text().splitlines()]


def test_labels_become_lines_and_live_precision_and_recall(client: TestClient, folder: Path) -> None:
    assert math.isnan(metric(client, "aidetect_feedback_precision"))
    truths = [(BRIGHT, "ai_generated"), (BRIGHT, "ai_generated"), (BRIGHT, "real"), (DARK, "fake"), (DARK, "real")]
    for data, label in truths:
        said = predict(client, data)
        answer = client.post("/feedback", json={"request_id": said["request_id"], "label": label, "by": "reviewer-7"})
        assert answer.status_code == 200
        receipt = answer.json()
        assert receipt["status"] == "recorded"
        assert receipt["prediction"] == said["prediction"]
        assert receipt["correct"] == (receipt["label"] == said["prediction"])
        assert receipt["probability"] == said["probability"]
    assert metric(client, "aidetect_feedback_precision") == pytest.approx(2 / 3)
    assert metric(client, "aidetect_feedback_recall") == pytest.approx(2 / 3)
    assert metric(client, 'aidetect_feedback_total{label="real",prediction="ai_generated"}') == 1
    kept = lines(folder)
    assert [line["label"] for line in kept] == ["ai_generated", "ai_generated", "real", "ai_generated", "real"]
    assert kept[0]["image_sha256"] == hashlib.sha256(BRIGHT).hexdigest()
    assert kept[0]["by"] == "reviewer-7"
    assert kept[0]["image"] is None
    assert not (folder / "images").exists()


def test_saying_it_twice_changes_nothing_and_a_correction_is_another_line(client: TestClient, folder: Path) -> None:
    body = {"request_id": predict(client, BRIGHT)["request_id"], "label": "real"}
    statuses = [client.post("/v1/feedback", json=body).json()["status"] for _ in range(2)]
    corrected = client.post("/feedback", json=body | {"label": "ai_generated"}).json()
    assert [*statuses, corrected["status"]] == ["recorded", "unchanged", "corrected"]
    assert [line["label"] for line in lines(folder)] == ["real", "ai_generated"]
    assert metric(client, "aidetect_feedback_precision") == 1.0


def test_an_item_of_a_batch_gets_its_own_label(client: TestClient, folder: Path) -> None:
    files = [("files", ("a.jpg", DARK, "image/jpeg")), ("files", ("b.jpg", BRIGHT, "image/jpeg"))]
    said = client.post("/predict/batch", files=files).json()
    answer = client.post("/feedback", json={"request_id": said["request_id"], "item": 1, "label": "real"})
    assert answer.json()["prediction"] == "ai_generated"
    assert lines(folder)[0]["item"] == 1


def test_labels_find_their_prediction_after_a_restart(toy_bundle: Path, folder: Path) -> None:
    with serve(toy_bundle, folder) as first:
        said = predict(first, BRIGHT)["request_id"]
        first.post("/feedback", json={"request_id": said, "label": "real"})
        other = predict(first, BRIGHT)["request_id"]
    with serve(toy_bundle, folder) as second:
        assert metric(second, "aidetect_feedback_precision") == 0.0
        assert second.post("/feedback", json={"request_id": other, "label": "ai"}).status_code == 200
        assert metric(second, "aidetect_feedback_precision") == 0.5


def test_labels_that_arrive_together_are_all_kept(client: TestClient, folder: Path) -> None:
    ids = [predict(client, BRIGHT)["request_id"] for _ in range(24)]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda i: client.post("/feedback", json={"request_id": i, "label": "real"}).status_code, ids)
        assert set(answers) == {200}
    assert sorted(line["request_id"] for line in lines(folder)) == sorted(ids)


def test_images_are_kept_only_when_asked_and_the_privacy_page_says_so(toy_bundle: Path, folder: Path) -> None:
    with serve(toy_bundle, folder, feedback_keep_images=True) as client:
        said = predict(client, DARK)["request_id"]
        client.post("/feedback", json={"request_id": said, "label": "real"})
        (line,) = lines(folder)
        assert (folder / line["image"]).read_bytes() == DARK
        assert "keeps judged images" in client.get("/privacy").json()["images"]
    with serve(toy_bundle, None) as client:
        assert "none is written" in client.get("/privacy").json()["images"]


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"request_id": "never-seen", "label": "real"}, 404, "not_found"),
        ({"request_id": "x", "label": "maybe"}, 422, "invalid_request"),
        ({"label": "real"}, 422, "invalid_request"),
        ({"request_id": "x", "label": "real", "extra": 1}, 422, "invalid_request"),
        ({"request_id": "x", "label": "real", "item": -1}, 422, "invalid_request"),
    ],
)
def test_bad_feedback_is_one_clear_problem(
    client: TestClient, folder: Path, body: dict[str, Any], status: int, reason: str
) -> None:
    answer = client.post("/feedback", json=body)
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.headers["content-type"] == "application/problem+json"
    assert not (folder / "feedback.jsonl").exists()


def test_a_server_without_a_folder_says_so(toy_bundle: Path) -> None:
    with serve(toy_bundle, None) as client:
        answer = client.post("/feedback", json={"request_id": "x", "label": "real"})
    assert answer.status_code == 409
    assert "FEEDBACK_DIR" in answer.json()["detail"]


def test_feedback_needs_the_key_that_predictions_need(toy_bundle: Path, folder: Path) -> None:
    with serve(toy_bundle, folder, require_auth=True, api_keys="secret-of-at-least-16-chars") as client:
        body = {"request_id": "x", "label": "real"}
        assert client.post("/feedback", json=body).status_code == 401
        key = {"X-API-Key": "secret-of-at-least-16-chars"}
        assert client.post("/feedback", json=body, headers=key).status_code == 404


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(toy_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"FEEDBACK_DIR=.*writable folder"):
        serve(toy_bundle, tmp_path / "file" / "feedback")
