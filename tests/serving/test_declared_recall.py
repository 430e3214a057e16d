"""A stream of uploads that declare themselves generated: counted, and the model's recall on them with its interval."""

import json
import math
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from pipelines.cli.app import app
from serving.app import create_app
from serving.detector.conclusion import DecisionBands, conclude
from serving.detector.decision import DecisionRule
from serving.detector.domain import UNKNOWN
from serving.provenance.inspect import inspect
from serving.settings import Settings
from serving.telemetry.metrics import Telemetry, wilson
from tests.bundles import jpeg
from tests.serving.processes import serve
from tests.signed import NEWSCODES
from tests.statements import source_type, with_xmp

DECLARED = with_xmp("JPEG", source_type(NEWSCODES + "trainedAlgorithmicMedia"))
STREAM, MISSED = 200, 150


def declared(level: int, seed: int) -> bytes:
    data, at = jpeg(level, seed=seed), DECLARED.index(b"\xff\xe1")
    length = int.from_bytes(DECLARED[at + 2 : at + 4], "big") + 2
    return data[:2] + DECLARED[at : at + length] + data[2:]


def stream(client: TestClient | httpx.Client) -> None:
    for start in range(0, STREAM, 10):
        photos = [declared(40 if n < MISSED else 220, n) for n in range(start, start + 10)]
        answer = client.post("/predict/batch", files=[("files", (f"{i}.jpg", p)) for i, p in enumerate(photos)])
        assert {item["decision"] for item in answer.json()["results"]} == {"likely_ai"}


def test_a_declared_stream_gives_recall_with_its_interval(toy_bundle: Path) -> None:
    settings = Settings(model_uri=str(toy_bundle), rate_limit_enabled=False, slots=1)
    with TestClient(create_app(settings)) as client:
        stream(client)
        client.post("/predict", files={"file": jpeg(40)})
        families = {f.name: f.samples for f in text_string_to_metric_families(client.get("/metrics").text)}
    recall = {sample.labels["bound"]: sample.value for sample in families["aidetect_declared_recall"]}
    assert recall["value"] == pytest.approx((STREAM - MISSED) / STREAM)
    assert (recall["low"], recall["high"]) == pytest.approx((0.195, 0.314), abs=0.001)
    assert recall["high"] < 0.8  # where the alert fires
    counted = {s.labels["prediction"]: s.value for s in families["aidetect_declared"] if s.name.endswith("_total")}
    assert counted == {"real": MISSED, "ai_generated": STREAM - MISSED}
    decided = {s.labels["decision"]: s.value for s in families["aidetect_decisions"] if s.name.endswith("_total")}
    assert decided == {"likely_ai": STREAM, "likely_real": 1}


@pytest.mark.system
def test_retraining_has_the_stream_for_a_reason(toy_bundle: Path, tmp_path: Path) -> None:
    asked = ["retrain", "--dry-run", "--json", "--set", f"paths.workspace={tmp_path / 'workspace'}"]
    with serve(toy_bundle, tmp_path / "api.log") as api, httpx.Client(base_url=api.url, timeout=60) as client:
        before = CliRunner().invoke(app, [*asked, "--url", api.url])
        assert json.loads(before.stdout)["decision"]["reason"] != "declared_recall", before.output
        stream(client)
        # a toy model is old; its age is no reason here
        after = CliRunner().invoke(app, [*asked, "--url", api.url, "--set", "retrain.max_age_days=100000"])
    decision = json.loads(after.stdout)["decision"]
    assert (decision["retrain"], decision["reason"]) == (True, "declared_recall"), after.output
    assert "recognises at most 31% of uploads that declare themselves generated" in decision["explanation"]


def test_a_new_model_does_not_inherit_the_recall_of_the_last() -> None:
    telemetry, bands = Telemetry(), DecisionBands(real_below=0.3, ai_from=0.7)

    def told() -> dict[str, float]:
        families = {f.name: f.samples for f in telemetry.registry.collect()}
        return {sample.labels["bound"]: sample.value for sample in families["aidetect_declared_recall"]}

    telemetry.bands(bands)
    assert told() == {}
    found = conclude(DecisionRule().verdict(0.1), bands, UNKNOWN, inspect(DECLARED), "0" * 64)
    telemetry.decision(found, "real")
    assert told()["high"] < 0.8
    telemetry.bands(bands)
    # not a number is below no limit: neither the alert nor `aidetect retrain` takes it for a reason
    assert all(math.isnan(value) for value in told().values())
    telemetry.decision(found, "ai_generated")
    assert told()["value"] == 1.0


def test_the_interval_is_wide_where_little_was_seen() -> None:
    for hits, n in ((0, 1), (1, 1), (1, 3), (50, 200)):
        share, low, high = wilson(hits, n)
        assert 0.0 <= low <= share <= high <= 1.0
    assert wilson(1, 3)[2] > 0.75
