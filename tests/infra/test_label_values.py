"""Every label value that a rule or a panel asks for is one that a provoked server exports."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serving.app import create_app
from serving.detector.domain import TrainedDomain
from serving.http.problems import STATUS
from serving.settings import Settings
from tests.bundles import jpeg, make_bundle
from tests.signed import NEWSCODES
from tests.statements import source_type, with_xmp

INFRA = Path(__file__).parents[2] / "infra"
SELECTOR = re.compile(r"\b((?:aidetect|http)_[a-z_]+)\{([^{}]*)\}")
MATCHER = re.compile(r'([a-z_]+)\s*(=~|=)\s*"((?:[^"\\]|\\.)*)"')
PROVOKED_ELSEWHERE = {("aidetect_shadow_agreement_total", "agree"), ("aidetect_drift_score", "signal")}


def wanted() -> Iterator[tuple[str, str, str, str]]:
    texts = [path.read_text() for path in (INFRA / "prometheus" / "rules").glob("*.yml")]
    texts += [
        json.dumps(json.loads(path.read_text())).replace('\\"', '"') for path in (INFRA / "grafana").rglob("*.json")
    ]
    for text in texts:
        for metric, selectors in SELECTOR.findall(text):
            for label, kind, value in MATCHER.findall(selectors):
                if label != "job" and "$" not in value:
                    yield metric, label, kind, value


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> str:
    domain = TrainedDomain(min_side_px=(32.0, 100.0))
    bundle = make_bundle(tmp_path_factory.mktemp("bundle") / "bundle", domain=domain)
    settings = Settings(model_uri=str(bundle), rate_limit_enabled=False, slots=1)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        for level in (20, 120, 128, 136, 230):
            client.post("/predict", files={"file": ("x.jpg", jpeg(level), "image/jpeg")})
        client.post("/predict", files={"file": ("x.jpg", b"no image", "image/jpeg")})
        declared = with_xmp("JPEG", source_type(NEWSCODES + "trainedAlgorithmicMedia"))
        client.post("/predict", files={"file": ("x.jpg", declared, "image/jpeg")})
        client.post("/predict", files={"file": ("x.jpg", jpeg(20, (300, 300)), "image/jpeg")})  # outside by its size
        client.post("/predict/batch", files=[("files", ("x.jpg", jpeg(20), "image/jpeg"))])
        found = client.get("/metrics").text
    late = Settings(model_uri=str(bundle), rate_limit_enabled=False, slots=1, request_timeout_s=1e-9)
    with TestClient(create_app(late)) as client:
        answer = client.post("/predict", files={"file": ("x.jpg", jpeg(20), "image/jpeg")})
        assert answer.json()["reason"] == "deadline_exceeded"
        return found + client.get("/metrics").text


def test_a_prediction_without_a_verdict_is_counted_and_a_refused_image_is_not(scrape: str) -> None:
    lines = [line for line in scrape.splitlines() if 'status="error"' in line]
    assert lines == ['aidetect_predictions_total{confidence="none",prediction="none",status="error"} 1.0']


def test_rules_and_panels_ask_for_values_that_exist(scrape: str) -> None:
    asked = set(wanted())
    assert ("aidetect_predictions_total", "status", "=", "error") in asked
    missing = []
    for metric, label, kind, value in asked:
        if (metric, label) in PROVOKED_ELSEWHERE:
            continue
        found = set(re.findall(rf'^{metric}\{{[^}}]*\b{label}="([^"]*)"', scrape, re.MULTILINE))
        if (metric, label) == ("aidetect_rejected_total", "reason"):
            found |= set(STATUS)
        parts = value.split("|") if kind == "=~" and "(" not in value else [value]
        missing += [
            (metric, label, part)
            for part in parts
            if not any(re.fullmatch(part, one) if kind == "=~" else one == part for one in found)
        ]
    assert missing == []
