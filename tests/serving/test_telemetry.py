"""Metrics, request ids and log lines, as a scraper, a client and a log reader see them."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from serving.app import create_app
from serving.registry import resolve
from serving.served import Served
from serving.settings import Settings
from serving.telemetry.logs import trace_fields
from tests.bundles import jpeg
from tests.serving.conftest import service_of
from tests.serving.processes import serve
from tests.serving.scraped import Samples, parse, upload, value

Client = Callable[..., TestClient]

KEY = "a-key-of-decent-length"


@pytest.fixture
def client(served: Served) -> Iterator[TestClient]:
    app = create_app(Settings(model_uri="unused", rate_limit_enabled=False), served)
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


def scrape(client: TestClient) -> Samples:
    return parse(client.get("/metrics").text)


def test_the_metrics_have_their_exact_names_and_labels(client: TestClient) -> None:
    verdict = client.post("/predict", files=upload()).json()
    client.post("/predict/batch", files=[("files", upload(30)["file"]), ("files", ("x.txt", b"text", "image/jpeg"))])
    client.post("/predict", files={"file": ("x.jpg", b"no image", "image/jpeg")})
    found = scrape(client)

    judged = {"status": "success", "prediction": verdict["prediction"], "confidence": verdict["confidence"]}
    assert value(found, "aidetect_predictions_total", **judged) == 1
    total = sum(v for (name, _), v in found.items() if name == "aidetect_predictions_total")
    assert total == 2
    assert value(found, "aidetect_prediction_latency_seconds_count") == 2
    assert value(found, "aidetect_prediction_probability_count") == 2
    assert value(found, "aidetect_batch_predictions_total") == 1
    assert value(found, "aidetect_batch_size_sum") == 2
    assert value(found, "aidetect_rejected_total", reason="unsupported_type") == 2
    assert value(found, "aidetect_model_loaded") == 1
    assert value(found, "aidetect_queue_depth") == 0
    assert value(found, "aidetect_drift_alert") == 0
    assert value(found, "http_requests_total", method="POST", endpoint="/predict", status="200") == 1
    assert value(found, "http_requests_total", method="POST", endpoint="/predict", status="415") == 1
    assert value(found, "http_request_duration_seconds_count", method="POST", endpoint="/predict") == 2
    info = [dict(labels) for (name, labels), v in found.items() if name == "aidetect_model_info" and v == 1]
    assert [(i["version"], i["architecture"]) for i in info] == [(verdict["model_version"], "toy")]


def test_a_probability_lands_in_its_bucket(client: TestClient) -> None:
    probability = client.post("/predict", files=upload()).json()["probability"]
    found = scrape(client)

    buckets = {
        float(dict(labels)["le"]): v
        for (name, labels), v in found.items()
        if name == "aidetect_prediction_probability_bucket"
    }
    assert all(count == (1 if le >= probability else 0) for le, count in buckets.items())


def test_two_hundred_random_paths_and_methods_add_one_series_each_at_most(client: TestClient) -> None:
    def known() -> set[object]:
        return {key for key in scrape(client) if key[0].startswith("http_")}

    client.get("/no/such/path")
    client.request("BREW", "/coffee")
    known()
    before = known()
    for i in range(200):
        client.get(f"/wp-admin/{i}.php")
        client.request(f"BREW{i}", f"/coffee/{i}")

    assert known() == before


def test_path_parameters_stay_out_of_the_labels(client: TestClient) -> None:
    for i in range(5):
        client.get(f"/v2/models/guess-{i}")
    endpoints = {dict(labels).get("endpoint", "") for (_, labels) in scrape(client)}

    assert not any("guess" in endpoint for endpoint in endpoints)
    assert any(endpoint.startswith("/v2/models/{") for endpoint in endpoints)


def test_a_new_model_takes_the_place_of_the_old_one_in_the_info(client: TestClient, inverted_bundle: Path) -> None:
    service = service_of(client)
    other = Served.load(resolve(str(inverted_bundle), inverted_bundle.parent))
    service.champion.take(other)
    versions = [dict(labels)["version"] for (name, labels) in scrape(client) if name == "aidetect_model_info"]

    assert versions == [other.version]


def test_applications_in_one_process_count_apart(served: Served, client: TestClient) -> None:
    client.post("/predict", files=upload())
    with TestClient(create_app(Settings(model_uri="unused"), served)) as second:
        assert value(scrape(second), "aidetect_prediction_probability_count") == 0
    assert value(scrape(client), "aidetect_prediction_probability_count") == 1


def test_openmetrics_for_scrapers_that_ask_for_it(client: TestClient) -> None:
    answer = client.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


# --- request ids --------------------------------------------------------------------------------------------


def test_the_server_makes_the_request_id_and_echoes_a_sane_one_for_correlation(client: TestClient) -> None:
    for given in ("order-7:a_b.c", "", "two words", "x" * 129, '"><script>', "a\tb"):
        headers = client.get("/health", headers={"X-Request-ID": given}).headers
        assert re.fullmatch(r"[0-9a-f]{32}", headers["x-request-id"])
        assert headers.get("x-correlation-id") == (given if given == "order-7:a_b.c" else None)
    first, second = (client.post("/predict", files=upload()) for _ in range(2))
    assert first.json()["request_id"] == first.headers["x-request-id"] != second.headers["x-request-id"]


def test_a_crash_is_a_problem_document_with_its_id_and_is_counted(served: Served) -> None:
    app = create_app(Settings(model_uri="unused"), served)

    @app.get("/crash")
    async def crash() -> None:
        raise LookupError("an internal detail")

    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/crash", headers={"X-Request-ID": "mine"})
        found = scrape(client)

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"] != "mine"
    assert answer.headers["x-correlation-id"] == "mine"
    assert "internal detail" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert value(found, "http_requests_total", method="GET", endpoint="/crash", status="500") == 1


# --- log lines of a real server -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def log_lines(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """Everything a server wrote while it judged, refused and was asked for its health."""
    log = tmp_path_factory.mktemp("server") / "log"
    env = {"API_KEYS": KEY, "GOOGLE_CLOUD_PROJECT": "shop", "TRUSTED_PROXIES": "1"}
    with (
        serve(toy_bundle, log, **env) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        http.post(
            "/predict?token=query-secret",
            files=upload(),
            headers={
                "X-API-Key": KEY,
                "X-Request-ID": "traced",
                "X-Forwarded-For": "198.51.100.4",
                "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                "User-Agent": "reader",
            },
        )
        http.post("/predict", files=upload(), headers={"X-API-Key": "a wrong key"})
        http.get("/healthz")
        http.get("/livez")
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_request_is_one_json_line_with_cloud_loggings_fields(log_lines: list[dict[str, object]]) -> None:
    (line,) = [line for line in log_lines if line.get("correlation_id") == "traced"]
    request = line["httpRequest"]

    assert line["severity"] == "INFO"
    assert line["message"] == "POST /predict 200"
    assert line["logging.googleapis.com/trace"] == "projects/shop/traces/4bf92f3577b34da6a3ce929d0e0e4736"
    assert line["logging.googleapis.com/spanId"] == "00f067aa0ba902b7"
    assert line["logging.googleapis.com/trace_sampled"] is True
    assert isinstance(request, dict)
    assert request["requestMethod"] == "POST"
    assert request["requestUrl"] == "/predict"
    assert request["status"] == 200
    assert request["remoteIp"] == "198.51.100.4"
    assert request["userAgent"] == "reader"
    assert float(request["latency"].removesuffix("s")) > 0
    assert int(request["responseSize"]) > 50


def test_refusals_are_logged_and_healthy_probes_are_not(log_lines: list[dict[str, object]]) -> None:
    messages = [line["message"] for line in log_lines]

    assert "POST /predict 401" in messages
    assert not any(path in str(m) for m in messages for path in ("/healthz", "/livez", "/readyz 200"))


def test_neither_keys_nor_queries_nor_images_reach_the_log(log_lines: list[dict[str, object]]) -> None:
    text = json.dumps(log_lines)

    assert len(log_lines) >= 2
    for secret in (KEY, "a wrong key", "query-secret", base64.b64encode(jpeg(200))[:40].decode(), "JFIF"):
        assert secret not in text


@pytest.mark.parametrize(
    ("traceparent", "cloud", "trace"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", None, "4bf92f3577b34da6a3ce929d0e0e4736"),
        (None, "4bf92f3577b34da6a3ce929d0e0e4736/123;o=1", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("garbage", "4bf92f3577b34da6a3ce929d0e0e4736/123", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("00-" + "0" * 32 + "-00f067aa0ba902b7-01", None, None),
        (None, "not/a trace", None),
        (None, None, None),
    ],
)
def test_trace_headers(traceparent: str | None, cloud: str | None, trace: str | None) -> None:
    assert trace_fields(traceparent, cloud, "").get("logging.googleapis.com/trace") == trace
