"""An explanation over HTTP: for the predicted class, drawn as the caller takes it, and what its grid adds up to."""

import base64
import io
from typing import cast

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from tests.serving.asking import BRIGHT, DARK, one


@pytest.mark.parametrize(("data", "label"), [(BRIGHT, "ai_generated"), (DARK, "real")])
def test_explain_speaks_for_the_predicted_class(client: TestClient, data: bytes, label: str) -> None:
    body = one(client, "/predict/explain", data).json()
    assert body["prediction"] == body["explained_class"] == label
    picture = Image.open(io.BytesIO(base64.b64decode(body["heatmap_base64"])))
    assert picture.format == "PNG"
    assert max(picture.size) == 192
    assert picture.width / picture.height == pytest.approx(90 / 70, rel=0.02)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/json, image/jpeg", "image/jpeg"),
        ("image/*;q=0.5", "image/jpeg"),
        ("*/*", "image/png"),
        ("application/json", "image/png"),
        ("image/png, */*", "image/png"),
        ("image/jpeg;q=0, */*", "image/png"),
    ],
)
def test_the_overlay_comes_as_the_caller_takes_it(client: TestClient, accept: str, expected: str) -> None:
    files = {"file": ("x.jpg", BRIGHT)}
    body = client.post("/predict/explain", files=files, headers={"Accept": accept}).json()
    assert body["heatmap_type"] == expected
    picture = Image.open(io.BytesIO(base64.b64decode(body["heatmap_base64"])))
    assert Image.MIME[str(picture.format)] == expected
    as_png = client.post("/predict/explain", files=files).json()
    exact = Image.open(io.BytesIO(base64.b64decode(as_png["heatmap_base64"]))).convert("RGB")
    assert np.abs(np.asarray(exact).astype(int) - np.asarray(picture.convert("RGB"))).mean() < 4
    assert body["heatmap"] == as_png["heatmap"]


def test_without_an_overlay_an_explanation_is_its_grid(client: TestClient) -> None:
    whole, alone = (one(client, f"/predict/explain{how}", BRIGHT).json() for how in ("?overlay=true", "?overlay=false"))
    assert (alone["heatmap_base64"], alone["heatmap_type"]) == (None, None)
    differ = ("request_id", "inference_time_ms", "heatmap_base64", "heatmap_type")
    assert {k: v for k, v in alone.items() if k not in differ} == {k: v for k, v in whole.items() if k not in differ}
    refused = one(client, "/predict/explain?overlay=perhaps", BRIGHT)
    assert (refused.status_code, refused.json()["reason"]) == (422, "invalid_request")


def test_a_heatmap_sums_to_the_logit_less_its_bias(client: TestClient) -> None:
    bright, dark = (one(client, "/predict/explain", data).json() for data in (BRIGHT, DARK))
    service = cast("FastAPI", client.app).state.service
    served = service.champion.current.detector
    bias = float(served.head().bias[0])
    for body, sign in ((bright, 1.0), (dark, -1.0)):
        rule = served.rule
        z = np.log(body["probability"] / (1 - body["probability"]))
        logit = (z - rule.bias) * rule.temperature
        assert sign * np.sum(body["heatmap"]) == pytest.approx(logit - bias, abs=1e-4)
