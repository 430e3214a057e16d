"""The challenger beside the champion: it agrees or not, and nobody waits for it."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.bundles import jpeg, make_bundle
from tests.serving.processes import HANG_S

BRIGHT = jpeg(205, (90, 70))


@contextmanager
def application(champion: Path, challenger: Path, sample: float = 1.0) -> Iterator[TestClient]:
    settings = Settings(
        model_uri=str(champion),
        shadow_model_uri=str(challenger),
        shadow_sample=sample,
        rate_limit_enabled=False,
        slots=1,
    )
    with TestClient(create_app(settings)) as client:
        yield client


def agreement(client: TestClient) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith("aidetect_shadow_agreement_total{")]
    return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in found}


def settle(client: TestClient, total: float) -> dict[str, float]:
    deadline = time.monotonic() + HANG_S
    while sum(agreement(client).values()) < total and time.monotonic() < deadline:
        time.sleep(0.02)
    return agreement(client)


def predict(client: TestClient, count: int, judged: bool = True) -> list[str]:
    answers = []
    for number in range(count):
        answers.append(client.post("/predict", files={"file": BRIGHT}).json()["prediction"])
        if judged:
            # the sample is thinner while images wait; these are to be judged one by one
            settle(client, number + 1)
    return answers


def test_agreement_is_counted_and_the_answer_is_the_champions(toy_bundle: Path, inverted_bundle: Path) -> None:
    with application(toy_bundle, inverted_bundle) as client:
        assert predict(client, 5) == ["ai_generated"] * 5
        assert settle(client, 5) == {"false": 5.0}
    with application(toy_bundle, toy_bundle) as client:
        assert predict(client, 5) == ["ai_generated"] * 5
        assert settle(client, 5) == {"true": 5.0}


def test_a_challenger_of_another_input_size_judges_the_image_itself(toy_bundle: Path, tmp_path: Path) -> None:
    larger = make_bundle(tmp_path / "larger", input_px=64)
    with application(toy_bundle, larger) as client:
        predict(client, 3)
        assert settle(client, 3) == {"true": 3.0}


def test_outside_the_sample_nothing_is_judged(toy_bundle: Path, inverted_bundle: Path) -> None:
    with application(toy_bundle, inverted_bundle, sample=0.0) as client:
        predict(client, 5, judged=False)
        time.sleep(0.1)
        assert agreement(client) == {}


def test_compare_shows_both(toy_bundle: Path, inverted_bundle: Path) -> None:
    with application(toy_bundle, inverted_bundle, sample=0.0) as client:
        body = client.post("/predict/compare", files={"file": BRIGHT}).json()
        health = client.get("/health").json()
        alone = client.post("/predict", files={"file": BRIGHT}).json()
        assert agreement(client) == {"false": 1.0}
    assert body["champion"]["prediction"] == alone["prediction"] == "ai_generated"
    assert body["champion"]["probability"] == pytest.approx(alone["probability"], abs=1e-6)
    assert body["challenger"]["prediction"] == "real"
    assert not body["agreement"]
    assert body["probability_difference"] == pytest.approx(
        body["challenger"]["probability"] - body["champion"]["probability"]
    )
    assert body["champion"]["model_version"] == health["model"]["version"]
    assert body["challenger"]["model_version"] == health["challenger"]["version"]


def test_a_challenger_that_fails_is_nobodys_problem(
    toy_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    challenger = shutil.copytree(toy_bundle, tmp_path / "challenger")
    with application(toy_bundle, challenger) as client:
        # an engine that takes another shape, as a real one would fail: inside ONNX Runtime
        from serving.detector.engine import Engine

        larger = make_bundle(tmp_path / "larger", input_px=64)
        holder = cast("FastAPI", client.app).state.service.challenger
        holder.current.detector._engine = Engine(larger / "model.onnx")
        assert predict(client, 3, judged=False) == ["ai_generated"] * 3
        deadline = time.monotonic() + HANG_S
        while "the challenger failed" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert agreement(client) == {}


def test_without_its_challenger_the_champion_serves(
    toy_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    with application(toy_bundle, tmp_path / "empty") as client:
        assert predict(client, 2, judged=False) == ["ai_generated"] * 2
        answer = client.post("/predict/compare", files={"file": BRIGHT})
        assert (answer.status_code, answer.json()["reason"]) == (409, "no_challenger")
        assert client.get("/health").json()["challenger"]["loaded"] is False
    assert "not a model bundle" in caplog.text
