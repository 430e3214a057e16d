"""True labels through POST /feedback: joined to their predictions, kept append-only, shown as precision and recall."""

import base64
import hashlib
import json
import math
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.platform.errors import StateError
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
    with pytest.raises(StateError, match=r"FEEDBACK_DIR=.*writable folder"):
        serve(toy_bundle, tmp_path / "file" / "feedback")


def test_the_servers_id_is_its_own_and_the_clients_is_for_correlation(client: TestClient, folder: Path) -> None:
    """A client that sends one id twice, or another's, can neither share nor overwrite a prediction."""
    ids = []
    for data in (BRIGHT, DARK):
        files = {"file": ("x.jpg", data, "image/jpeg")}
        answer = client.post("/predict", files=files, headers={"X-Request-ID": "order-42"})
        assert answer.headers["X-Correlation-ID"] == "order-42"
        assert answer.json()["request_id"] == answer.headers["X-Request-ID"] != "order-42"
        ids.append(answer.json()["request_id"])
    assert client.post("/feedback", json={"request_id": "order-42", "label": "real"}).status_code == 404
    said = [client.post("/feedback", json={"request_id": i, "label": "real"}).json()["prediction"] for i in ids]
    assert said == ["ai_generated", "real"]
    odd = client.get("/healthz", headers={"X-Request-ID": "no <sane> id"})
    assert "X-Correlation-ID" not in odd.headers


def test_every_dialect_is_remembered_under_the_id_that_it_answers(client: TestClient, folder: Path) -> None:
    images = [base64.b64encode(data).decode() for data in (DARK, BRIGHT)]
    vertex = client.post("/vertex/predict", json={"instances": [{"b64": text} for text in images]}).json()
    asked = [(found["request_id"], found["item"]) for found in vertex["predictions"]]
    name = client.get("/model").json()["name"]
    tensor = {"name": "image", "datatype": "BYTES", "shape": [2], "data": images}
    v2 = client.post(f"/v2/models/{name}/infer", json={"id": "mine", "inputs": [tensor]}).json()
    assert v2["id"] == "mine"
    asked += [(v2["parameters"]["request_id"], item) for item in range(2)]
    for (request_id, item), said in zip(asked, ["real", "ai_generated"] * 2, strict=True):
        answer = client.post("/feedback", json={"request_id": request_id, "item": item, "label": "real"})
        assert (answer.status_code, answer.json()["prediction"]) == (200, said)
    assert [line["item"] for line in lines(folder)] == [0, 1, 0, 1]


def test_whose_key_labelled_is_kept_and_a_correction_names_what_it_replaces(toy_bundle: Path, folder: Path) -> None:
    ada, bob = "key-of-ada-0123456789", "key-of-bob-0123456789"
    with serve(toy_bundle, folder, require_auth=True, api_keys=f"{ada},{bob}") as client:
        files = {"file": ("x.jpg", BRIGHT, "image/jpeg")}
        request_id = client.post("/predict", files=files, headers={"X-API-Key": ada}).json()["request_id"]
        for key, label in ((ada, "real"), (bob, "ai_generated")):
            body = {"request_id": request_id, "label": label, "by": "ada"}
            assert client.post("/feedback", json=body, headers={"X-API-Key": key}).status_code == 200
    first, second = lines(folder)
    ids = [hashlib.sha256(key.encode()).hexdigest()[:12] for key in (ada, bob)]
    assert [first["key"], second["key"]] == ids
    assert (first["predicted_for_key"], first["corrects"]) == (ids[0], None)
    assert second["corrects"] == {"label": "real", "key": ids[0]}
    assert second["by"] == "ada"
    assert ada not in (folder / "feedback.jsonl").read_text()


def test_a_busy_index_loses_no_prediction_and_a_label_is_asked_for_again(
    toy_bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.platform.recorder.BUSY_TIMEOUT_S", 0.2)
    with serve(toy_bundle, folder) as client:
        busy = sqlite3.connect(folder / "index.sqlite", isolation_level=None)
        busy.execute("BEGIN EXCLUSIVE")
        said = predict(client, BRIGHT)["request_id"]
        body = {"request_id": said, "label": "real"}
        refused = client.post("/feedback", json=body)
        assert (refused.status_code, refused.json()["reason"]) == (503, "not_kept")
        assert int(refused.headers["Retry-After"]) >= 1
        assert not (folder / "feedback.jsonl").exists()
        troubles = 'aidetect_record_troubles_total{record="feedback",trouble="unwritten"}'
        assert metric(client, troubles) >= 1
        busy.execute("ROLLBACK")
        assert client.post("/feedback", json=body).json()["status"] == "recorded"
        assert len(lines(folder)) == 1
        busy.close()


def test_a_torn_line_is_mended_by_the_next_label(client: TestClient, folder: Path) -> None:
    labels = [{"request_id": predict(client, data)["request_id"], "label": "real"} for data in (BRIGHT, DARK)]
    client.post("/feedback", json=labels[0])
    with (folder / "feedback.jsonl").open("ab") as file:
        file.write(b'{"at": "2026-11-')
    assert client.post("/feedback", json=labels[1]).status_code == 200
    assert [line["request_id"] for line in lines(folder)] == [label["request_id"] for label in labels]


@pytest.mark.parametrize("damage", [b"not a database at all, " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_index_is_moved_aside_and_the_server_starts(toy_bundle: Path, folder: Path, damage: bytes) -> None:
    folder.mkdir()
    (folder / "index.sqlite").write_bytes(damage)
    with serve(toy_bundle, folder) as client:
        body = {"request_id": predict(client, BRIGHT)["request_id"], "label": "real"}
        assert client.post("/feedback", json=body).status_code == 200
        assert metric(client, 'aidetect_record_troubles_total{record="feedback",trouble="damaged"}') == 1
    (aside,) = folder.glob("index.sqlite.damaged-*")
    assert aside.read_bytes() == damage


def test_an_index_of_the_first_release_is_read(toy_bundle: Path, folder: Path) -> None:
    folder.mkdir()
    with sqlite3.connect(folder / "index.sqlite") as index:
        index.execute(
            "CREATE TABLE predictions (request_id TEXT NOT NULL, item INTEGER NOT NULL, at REAL NOT NULL, version TEXT "
            "NOT NULL, prediction TEXT NOT NULL, probability REAL NOT NULL, sha256 TEXT NOT NULL, label TEXT, "
            "PRIMARY KEY (request_id, item))"
        )
        row = ("old", 0, time.time(), "1", "real", 0.1, "0" * 64)
        index.execute("INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", row)
    with serve(toy_bundle, folder) as client:
        answer = client.post("/feedback", json={"request_id": "old", "label": "fake"})
        assert (answer.status_code, answer.json()["correct"]) == (200, False)


def test_kept_images_have_a_cap_and_labelled_ones_stay(toy_bundle: Path, folder: Path) -> None:
    photos = [jpeg(20 + 4 * i, seed=i) for i in range(8)]
    with serve(toy_bundle, folder, feedback_keep_images=True, feedback_max_images=5) as client:
        for photo in photos:
            said = predict(client, photo)["request_id"]
            if photo is photos[0]:
                client.post("/feedback", json={"request_id": said, "label": "real"})
        client.post("/feedback", json={"request_id": said, "label": "real"})
        kept = {path.name for path in (folder / "images").iterdir()}
    names = [hashlib.sha256(photo).hexdigest() for photo in photos]
    assert len(kept) <= 5
    assert {names[0], names[-1]} <= kept
    assert names[1] not in kept


def test_kept_images_have_a_cap_in_bytes(toy_bundle: Path, folder: Path) -> None:
    photos = [jpeg(20 + 4 * i, seed=i) for i in range(6)]
    most = 3 * max(map(len, photos))
    with serve(toy_bundle, folder, feedback_keep_images=True, feedback_max_image_bytes=most) as client:
        for photo in photos:
            body = {"request_id": predict(client, photo)["request_id"], "label": "real"}
            assert client.post("/feedback", json=body).status_code == 200
        assert sum(path.stat().st_size for path in (folder / "images").iterdir()) <= most
        # all of them are labelled: none may go, so the later ones are not kept, which is counted
        assert metric(client, "aidetect_feedback_images_refused_total") >= 1
    assert [line["image"] is None for line in lines(folder)] == [False] * 3 + [True] * 3
