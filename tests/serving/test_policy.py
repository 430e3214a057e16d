"""One rule everywhere: every route, the command line and catalogues decide by the deployment's own policy."""

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from pipelines.cli.app import app
from serving.app import create_app
from serving.detector.bundle import read_manifest
from serving.settings import Settings
from tests.bundles import jpeg
from tests.releases import make_evaluation, make_verdict
from tests.signed import authority, sign
from tests.statements import FILES, SECRET

BOUNDS = {"DECISION_REAL_BELOW": "0", "DECISION_AI_FROM": "1"}
"""With these every score is between the thresholds."""


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """A bright one, a dark one, and one whose signed statement is that of a listed signer."""
    files = {"bright": jpeg(210), "dark": jpeg(40), "signed": sign("jpeg", "digitalCapture")}
    paths = [tmp_path / "photos" / f"{name}.jpg" for name in files]
    paths[0].parent.mkdir()
    for path, data in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    return paths


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The deployment's environment."""
    (tmp_path / "roots.pem").write_text(authority().root_pem)
    found = {**BOUNDS, "C2PA_TRUST_LISTS": str(tmp_path / "roots.pem")}
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


def told(found: dict[str, Any]) -> tuple[str, str, bool]:
    """What depends on the policy."""
    return found["decision"], found["reasons"][-1]["code"], found["provenance"]["c2pa"]["trusted"]


def settings_of(bundle: Path, **more: Any) -> Settings:
    """Without limits; the first explanation loads torch, which takes its time on a busy machine."""
    return Settings(model_uri=str(bundle), rate_limit_enabled=False, slots=1, request_timeout_s=120, **more)


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.usefixtures("policy")
def test_every_way_to_ask_decides_by_the_same_policy(photos: list[Path], toy_bundle: Path, tmp_path: Path) -> None:
    expected = [("review", "score_between", name == "signed") for name in ("bright", "dark", "signed")]
    files = [path.read_bytes() for path in photos]
    with TestClient(create_app(settings_of(toy_bundle))) as client:
        for path in ("/predict", "/predict/explain"):
            answers = [client.post(path, files={"file": ("a.jpg", data)}).json() for data in files]
            assert [told(answer) for answer in answers] == expected, path
        batch = client.post("/predict/batch", files=[("files", ("a.jpg", data)) for data in files]).json()
        assert [told(item) for item in batch["results"]] == expected
        body = {"instances": [{"b64": base64.b64encode(data).decode()} for data in files]}
        assert [told(found) for found in client.post("/vertex/predict", json=body).json()["predictions"]] == expected
        data = [one["b64"] for one in body["instances"]]
        tensor = {"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}
        v2 = client.post("/v2/models/ai-product-photo-detector/infer", json={"inputs": [tensor]}).json()
        outputs = {one["name"]: one["data"] for one in v2["outputs"]}
        texts = zip(outputs["decision"], outputs["reasons"], outputs["provenance"], strict=True)
        rows = [{"decision": d, "reasons": json.loads(r), "provenance": json.loads(p)} for d, r, p in texts]
        assert [told(row) for row in rows] == expected

    model = ["--model", str(toy_bundle), "--json"]
    assert [told(found) for found in run("predict", *map(str, photos), *model)] == expected
    assert told(run("explain", str(photos[2]), "-o", str(tmp_path / "heat.png"), *model)) == expected[2]
    run("score", str(photos[0].parent), "-o", str(tmp_path / "rows"), "--workers", "1", *model)
    table = pq.read_table(tmp_path / "rows" / "parts", columns=["decision"])
    assert table.column("decision").to_pylist() == ["review"] * 3


def released(bundle: Path, folder: Path, caveat: str = "") -> Path:
    """A copy of the bundle with an evaluation and a verdict."""
    copy, digest = shutil.copytree(bundle, folder / "bundle"), read_manifest(bundle).digest
    release = shutil.copytree(make_evaluation(folder / "evaluation", digest, caveat), copy / "release")
    found = json.loads((release / "evaluation.json").read_text())
    found["test"]["metrics"] |= {"fpr": {"value": 0.07, "low": 0.03, "high": 0.14}, "fnr": {"value": 0.05}}
    (release / "evaluation.json").write_text(json.dumps(found))
    shutil.copy(make_verdict(folder / "verdict", digest) / "verdict.json", release)
    return copy


def test_every_answer_carries_by_what_it_was_decided(toy_bundle: Path, tmp_path: Path) -> None:
    bundle = released(toy_bundle, tmp_path, "Only a sample.")
    settings = settings_of(bundle, shadow_model_uri=str(toy_bundle), decision_ai_from=0.9)
    data = jpeg(200)
    with TestClient(create_app(settings)) as client:
        record = client.post("/predict", files={"file": ("a.jpg", data)}).json()["record"]
        encoded = base64.b64encode(data).decode()
        others = [
            client.post("/predict/explain", files={"file": ("a.jpg", data)}).json(),
            client.post("/predict/batch", files=[("files", ("a.jpg", data))]).json(),
            client.post("/predict/compare", files={"file": ("a.jpg", data)}).json()["champion"],
            client.post("/vertex/predict", json={"instances": [{"b64": encoded}]}).json()["predictions"][0],
        ]
        tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [encoded]}
        v2 = client.post("/v2/models/ai-product-photo-detector/infer", json={"inputs": [tensor]}).json()
        about = client.get("/").json()
    assert all(other["record"] == record for other in others)
    assert json.loads(v2["parameters"]["record"]) == record
    assert record["model_digest"] == read_manifest(toy_bundle).digest
    assert record["thresholds"]["ai_from"] == 0.9 and record["thresholds"]["alpha_real"] is None
    assert record["error_rates"] == {
        "false_alarms": {"value": 0.07, "low": 0.03, "high": 0.14},
        "misses": {"value": 0.05, "low": None, "high": None},
        "test_images": 200,
    }
    assert record["caveat"] == about["caveat"] == "Only a sample."
    assert about["takes_feedback"] is False


def test_thresholds_in_force_are_logged_and_exported(toy_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"), TestClient(create_app(settings_of(toy_bundle, decision_ai_from=0.9))) as client:
        text = client.get("/metrics").text
        lower = client.post("/predict", files={"file": ("a.jpg", jpeg(200))}).json()["record"]["thresholds"][
            "real_below"
        ]
    exported = dict(re.findall(r'^aidetect_decision_threshold\{decision="(\w+)"\} (\S+)$', text, re.MULTILINE))
    assert {name: float(value) for name, value in exported.items()} == {"likely_real": lower, "likely_ai": 0.9}
    assert f"decisions: likely_real below {lower:.4f}, likely_ai from 0.9000 on" in caplog.text


def test_a_prompt_is_neither_answered_nor_logged_nor_kept(
    toy_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = tmp_path / "kept"
    settings = settings_of(toy_bundle, feedback_dir=kept, drift_state_path=kept / "drift.sqlite")
    files = [data for data, _, declared in FILES.values() if declared == "ai_generated"]
    answers = []
    with caplog.at_level("DEBUG"), TestClient(create_app(settings)) as client:
        for start in range(0, len(files), 10):
            some = files[start : start + 10]
            answers.append(client.post("/predict/batch", files=[("files", ("a.jpg", data)) for data in some]))
            body = {"instances": [{"b64": base64.b64encode(data).decode()} for data in some]}
            answers.append(client.post("/vertex/predict", json=body))
        judged = client.post("/predict/explain", files={"file": ("a.png", FILES["comfy-prompt"][0])})
        label = {"request_id": judged.json()["request_id"], "label": "ai_generated"}
        answers += [judged, client.post("/feedback", json=label)]
    assert [answer.status_code for answer in answers[:-1]] == [200] * (len(answers) - 1)
    assert answers[-1].is_success, answers[-1].text
    assert '"declared_ai_generated"' in answers[0].text, "they were read"
    said = caplog.text + "".join(answer.text for answer in answers)
    on_disk = b"".join(path.read_bytes() for path in kept.rglob("*") if path.is_file())
    word = "teapot"
    assert word in SECRET and on_disk
    assert word not in said and word.encode() not in on_disk


def test_a_model_that_nobody_gated_says_so(client: TestClient) -> None:
    record = client.post("/predict", files={"file": ("a.jpg", jpeg(200))}).json()["record"]
    assert record["error_rates"] is None and "never went through the quality gate" in record["caveat"]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("DECISION_REAL_BELOW", "2", "DECISION_REAL_BELOW: Input should be less than or equal to 1"),
        ("C2PA_TRUST_LISTS", "nowhere.pem", "nowhere.pem: no readable trust list"),
    ],
)
@pytest.mark.parametrize("verb", ["predict", "score"])
def test_a_policy_that_cannot_be_is_said_in_one_line(
    verb: str, variable: str, value: str, words: str, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    (tmp_path / "a.jpg").write_bytes(jpeg(120))
    more = ["-o", str(tmp_path / "rows")] if verb == "score" else []
    result = CliRunner().invoke(app, [verb, str(tmp_path / "a.jpg"), "--model", str(toy_bundle), *more])
    assert result.exit_code == 1
    assert words in str(result.exception) + result.output
