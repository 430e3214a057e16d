"""The UI's client and memory against the real server."""

import base64
import csv
import functools
import http.server
import io
import json
import threading
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.detector import heatmap as drawn
from serving.detector.image import decode
from serving.ui import client as ui_client
from serving.ui import export, heatmap
from serving.ui.client import ApiError, Client, Photo, Refusal, Verdict, chunks
from serving.ui.memory import Memory, content_hash
from tests.bundles import jpeg
from tests.serving.processes import Server, free_port, serve
from tests.serving.ui.conftest import KEY

BRIGHT, DARK, TEXT = Photo("bright.jpg", jpeg(210)), Photo("dark.jpg", jpeg(40)), Photo("note.txt", b"no picture")


def by_hash(*photos: Photo) -> dict[str, Photo]:
    return {content_hash(photo.data): photo for photo in photos}


def test_verdicts_are_those_of_the_api_on_both_ways(api: Server) -> None:
    client = Client(api.url, KEY)
    said = httpx.post(f"{api.url}/predict", files={"file": BRIGHT.data}, headers={"X-API-Key": KEY}).json()
    bright, dark, text = client.batch([BRIGHT, DARK, TEXT])
    explained = client.explain(BRIGHT)
    assert isinstance(bright, Verdict) and isinstance(dark, Verdict) and isinstance(text, Refusal)
    assert (bright.prediction, dark.prediction) == ("ai_generated", "real")
    for verdict in (bright, explained.verdict):
        assert verdict.probability == pytest.approx(said["probability"], abs=1e-6)
        assert (verdict.confidence, verdict.model_version) == (said["confidence"], said["model_version"])
    assert "JPEG" in text.detail
    assert explained.explained_class == "ai_generated" and np.asarray(explained.grid).shape == (4, 4)


@pytest.mark.parametrize(("key", "words"), [("wrong", "refused this key"), ("", "wants a key"), ("schlüssel", "Paste")])
def test_a_wrong_key_is_named(api: Server, key: str, words: str) -> None:
    with pytest.raises(ApiError, match=words) as caught:
        Client(api.url, key).model()
    assert caught.value.kind == "unauthorized"


def test_an_api_that_is_down_is_named_with_the_fix() -> None:
    with pytest.raises(ApiError, match="make serve") as caught:
        Client(f"http://127.0.0.1:{free_port()}").about()
    assert caught.value.kind == "unreachable"
    with pytest.raises(ApiError, match="no http address"):
        Client("localhost-without-scheme").about()


def test_another_service_is_not_taken_for_the_api(tmp_path: Path) -> None:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    (tmp_path / "model").write_text("{}")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as other:
        threading.Thread(target=other.serve_forever, args=(0.02,), daemon=True).start()
        client = Client(f"http://127.0.0.1:{other.server_address[1]}")
        for call in (client.model, client.drift, client.about):
            with pytest.raises(ApiError, match="not this detector's API"):
                call()
        other.shutdown()


def test_a_refused_file_is_an_outcome_and_not_asked_again(api: Server) -> None:
    memory = Memory(Client(api.url, KEY))
    memory.refresh()
    (sha256,) = by_hash(TEXT)
    memory.explain(TEXT, sha256)
    assert isinstance(memory.outcome(sha256), Refusal)
    memory.explain(TEXT, sha256)
    assert len(memory.history) == 1


def test_the_limit_says_when_it_opens_and_keeps_what_was_judged(toy_bundle: Path, tmp_path: Path) -> None:
    photos = by_hash(*(Photo(f"{level}.jpg", jpeg(level)) for level in range(30, 45)))
    limits = {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_BATCH": "1/minute"}
    with serve(toy_bundle, tmp_path / "log", **limits) as server:
        memory = Memory(Client(server.url))
        memory.refresh()
        with pytest.raises(ApiError) as caught:
            memory.judge(photos)
        assert caught.value.kind == "rate_limited" and 0 < (caught.value.retry_after_s or 0) <= 60
        assert sum(memory.outcome(sha256) is not None for sha256 in photos) == 10
        # while the limit is closed the API is left in peace
        with pytest.raises(ApiError, match=r"Try again in \d+ s"):
            memory.judge(photos)
        assert server.terminate() == 0
        assert server.log.count("POST /predict/batch 429") == 1


def test_an_exchanged_model_answers_anew(toy_bundle: Path, inverted_bundle: Path, tmp_path: Path) -> None:
    (sha256,) = photos = by_hash(BRIGHT)
    with serve(toy_bundle, tmp_path / "one") as server:
        memory = Memory(Client(server.url))
        memory.refresh()
        memory.judge(photos)
        first = memory.outcome(sha256)
    with serve(inverted_bundle, tmp_path / "two") as server:
        memory.client = Client(server.url)
        memory.refresh()
        assert memory.outcome(sha256) is None
        memory.judge(photos)
        second = memory.outcome(sha256)
    assert isinstance(first, Verdict) and isinstance(second, Verdict)
    assert (first.prediction, second.prediction) == ("ai_generated", "real")
    assert len({entry.outcome.model_version for entry in memory.history}) == 2


def test_batches_respect_both_limits_and_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    photos = [Photo(str(i), b"x" * size) for i, size in enumerate([1] * 12 + [60, 60, 10, 200, 5])]
    monkeypatch.setattr(ui_client, "MAX_BATCH_BYTES", 100)
    found = chunks(photos)
    assert [photo for chunk in found for photo in chunk] == photos
    assert [len(chunk) for chunk in found] == [10, 3, 2, 1, 1]


def test_exports_carry_every_row_and_no_formula(api: Server) -> None:
    memory = Memory(Client(api.url, KEY))
    memory.refresh()
    nasty = Photo("=cmd()|'../../x.jpg", BRIGHT.data)
    memory.judge(by_hash(nasty, TEXT))
    photos = [nasty, TEXT, DARK]
    rows = [export.row(p.name, content_hash(p.data), memory.outcome(content_hash(p.data))) for p in photos]
    heatmaps = [(nasty.name, "a" * 64, b"png"), ("x.jpg", "b" * 64, b"other")]
    archive = zipfile.ZipFile(io.BytesIO(export.as_zip(rows, heatmaps)))
    lines = list(csv.DictReader(io.StringIO(archive.read("results.csv").decode("utf-8-sig"))))
    assert [line["prediction"] for line in lines] == ["ai_generated", "", ""]
    assert lines[0]["file"].startswith("'=") and lines[2]["error"] == "not judged yet"
    assert json.loads(archive.read("results.json"))[0]["probability"] == pytest.approx(float(lines[0]["probability"]))
    assert [n for n in archive.namelist() if n.startswith("heatmaps")] == [
        "heatmaps/001-x-aaaaaaaa.png",
        "heatmaps/002-x-bbbbbbbb.png",
    ]
    assert [line["decision"] for line in lines][1:] == ["", ""] and lines[0]["reasons"].startswith("The model's score")


def test_the_heatmap_is_drawn_as_everywhere_else(api: Server) -> None:
    found = httpx.post(
        f"{api.url}/predict/explain", files={"file": BRIGHT.data}, headers={"X-API-Key": KEY}, timeout=60
    ).json()
    theirs = Image.open(io.BytesIO(base64.b64decode(found["heatmap_base64"])))
    # the page shows small photos larger than an answer does
    ours = heatmap.laid_over(drawn.shown(decode(BRIGHT.data).rgb, max(theirs.size)), found["heatmap"])
    # the grey of a pixel may round to the palette's next
    differ = np.abs(np.asarray(ours.convert("RGB")).astype(int) - np.asarray(theirs.convert("RGB")))
    assert differ.max() <= 6 and differ.mean() <= 1
    assert not heatmap.is_fine(found["heatmap"])


def test_a_label_reaches_the_api_for_single_photos_and_for_items_of_a_batch(toy_bundle: Path, tmp_path: Path) -> None:
    with serve(toy_bundle, tmp_path / "log", FEEDBACK_DIR=str(tmp_path / "labels")) as server:
        memory = Memory(Client(server.url))
        memory.refresh()
        assert memory.about.takes_feedback
        photos = by_hash(BRIGHT, DARK)
        memory.judge(photos)
        for sha256, label in zip(photos, ("real", "real"), strict=True):
            memory.label(sha256, label)
        lines = (tmp_path / "labels" / "feedback.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in lines]
    assert [(line["image_sha256"], line["label"], line["by"]) for line in kept] == [
        (sha256, "real", "page") for sha256 in photos
    ]


def test_without_room_for_an_explanation_there_is_still_a_verdict(toy_bundle: Path, tmp_path: Path) -> None:
    limits = {"RATE_LIMIT_ENABLED": "true", "RATE_LIMIT_EXPLAIN": "1/minute", "RATE_LIMIT_PREDICT": "2/minute"}
    with serve(toy_bundle, tmp_path / "log", EXPLAIN_WARMUP="true", **limits) as server:
        memory = Memory(Client(server.url))
        memory.refresh()
        photos = [Photo(f"{level}.jpg", jpeg(level)) for level in (30, 60, 90, 120)]
        hashes = [content_hash(photo.data) for photo in photos]
        late = [memory.look_at(p, h) for p, h in zip(photos[:3], hashes, strict=False)]
        assert late[0] is None and all(error is not None and error.kind == "rate_limited" for error in late[1:])
        assert [memory.explanation(h) is not None for h in hashes[:3]] == [True, False, False]
        assert all(memory.outcome(h) is not None for h in hashes[:3])
        with pytest.raises(ApiError) as caught:
            memory.look_at(photos[3], hashes[3])
        assert 0 < (caught.value.retry_after_s or 0) <= 60


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "I;16"])
def test_every_kind_of_picture_can_be_shown(mode: str) -> None:
    grey = Image.new("L", (40, 30), 200)
    image = Image.new("I;16", (40, 30), 200 << 8) if mode == "I;16" else grey.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG" if mode == "CMYK" else "PNG")
    shown = heatmap.shown(buffer.getvalue())
    assert (shown.mode, shown.size) == ("RGB", (256, 192))
    assert abs(int(np.asarray(shown)[0, 0, 0]) - 200) <= 2


def test_a_turned_photo_is_shown_upright() -> None:
    image, exif = Image.new("RGB", (40, 20)), Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    assert heatmap.shown(buffer.getvalue()).size == (128, 256)
