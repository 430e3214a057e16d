"""DECISION_REAL_BELOW and DECISION_AI_FROM: what a deployment decides is decided on every route alike."""

import base64
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.settings import Settings
from tests.bundles import jpeg


@pytest.mark.parametrize(
    ("real_below", "ai_from", "expected"),
    [(0.0, 0.0, "likely_ai"), (1.0, 1.0, "likely_real"), (0.0, 1.0, "review")],
)
def test_every_route_decides_by_them(toy_bundle: Path, real_below: float, ai_from: float, expected: str) -> None:
    settings = Settings(
        model_uri=str(toy_bundle),
        rate_limit_enabled=False,
        request_timeout_s=100.0,  # the first explanation loads torch
        slots=1,
        decision_real_below=real_below,
        decision_ai_from=ai_from,
    )
    data = jpeg(205, (90, 70), seed=3)
    encoded = base64.b64encode(data).decode()
    with TestClient(create_app(settings)) as client:
        answers = [
            client.post("/predict", files={"file": ("x.jpg", data, "image/jpeg")}).json(),
            client.post("/predict/explain", files={"file": ("x.jpg", data, "image/jpeg")}).json(),
            client.post("/predict/batch", files=[("files", ("x.jpg", data, "image/jpeg"))]).json()["results"][0],
            client.post("/vertex/predict", json={"instances": [{"b64": encoded}]}).json()["predictions"][0],
        ]
    assert [answer["decision"] for answer in answers] == [expected] * 4
    assert len({answer["probability"] for answer in answers}) == 1
