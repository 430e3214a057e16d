"""Keys, sizes and rates through the front door: what acts on headers alone is test_security_sockets."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

from serving.app import create_app
from serving.platform.errors import SecurityConfigError
from serving.served import Served
from serving.settings import Settings
from serving.telemetry.clients import bucket, client_address
from tests.bundles import jpeg

KEY = "a-key-of-decent-length"
OTHER_KEY = "another-key-of-decent-length"

Client = Callable[..., TestClient]


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    """Makes a running application with the settings given and answers a client of it."""
    open_clients: list[TestClient] = []

    def make(peer: str = "203.0.113.7", **settings: Any) -> TestClient:
        values = {"model_uri": "unused", **settings}
        if "api_keys" in values:
            values["api_keys"] = SecretStr(str(values["api_keys"]))
        app = create_app(Settings(**values), served)
        found = TestClient(app, raise_server_exceptions=False, client=(peer, 50000))
        open_clients.append(found.__enter__())
        return found

    yield make
    for found in open_clients:
        found.__exit__(None, None, None)


def upload() -> dict[str, tuple[str, bytes, str]]:
    return {"file": ("x.jpg", jpeg(200), "image/jpeg")}


def metric(client: TestClient, line: str) -> float:
    found = [row for row in client.get("/metrics").text.splitlines() if row.startswith(line + " ")]
    return float(found[0].rpartition(" ")[2]) if found else 0.0


# --- keys ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/predict", "/v1/predict", "/predict/batch", "/predict/explain"])
def test_without_a_key_there_is_one_answer_and_it_is_a_problem_document(client: Client, path: str) -> None:
    answer = client(api_keys=KEY, require_auth=True).post(path, content=b"never parsed")

    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"]
    assert answer.json()["reason"] == "unauthorized"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/drift", "/model", "/v2/models/ai-product-photo-detector"])
def test_what_the_model_is_and_sees_needs_a_key_too(client: Client, path: str) -> None:
    guarded = client(api_keys=KEY, require_auth=True)

    assert guarded.get(path).status_code == 401
    assert guarded.get(path, headers={"X-API-Key": KEY}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/privacy", "/health", "/healthz", "/readyz", "/startup", "/metrics", "/v1/health"]
)
def test_probes_and_scrapers_need_no_key(client: Client, path: str) -> None:
    assert client(api_keys=KEY, require_auth=True).get(path).status_code == 200


def test_each_key_of_the_list_opens_and_a_near_miss_does_not(client: Client) -> None:
    guarded = client(api_keys=f" {KEY}, {OTHER_KEY},", require_auth=True)

    for key in (KEY, OTHER_KEY):
        assert guarded.post("/predict", files=upload(), headers={"X-API-Key": key}).status_code == 200
    for key in ("", KEY[:-1], KEY + "x", KEY.upper(), f"{KEY},{OTHER_KEY}"):
        assert guarded.post("/predict", files=upload(), headers={"X-API-Key": key}).status_code == 401


def test_sixty_wrong_keys_are_throttled_and_so_is_a_right_one_among_them(client: Client) -> None:
    guarded = client(api_keys=KEY, require_auth=True)

    statuses = [guarded.get("/model", headers={"X-API-Key": f"guess-{i}"}).status_code for i in range(60)]
    last = guarded.get("/model", headers={"X-API-Key": "one more"})

    assert statuses.count(401) == 10
    assert statuses.count(429) == 50
    assert int(last.headers["retry-after"]) >= 1
    assert metric(guarded, 'aidetect_rejected_total{reason="auth_throttled"}') == 51
    # a right guess looks as a wrong one does
    assert guarded.get("/model", headers={"X-API-Key": KEY}).status_code == 429


def test_a_stranger_who_guesses_does_not_lock_out_a_customer_behind_the_same_address(client: Client) -> None:
    guarded = client(api_keys=f"{KEY},{OTHER_KEY}", require_auth=True)

    def ask(key: str) -> int:
        return guarded.get("/model", headers={"X-API-Key": key}).status_code

    assert ask(KEY) == 200
    assert [ask(f"guess-{i}") for i in range(11)] == [401] * 10 + [429]
    assert [ask(KEY), ask(OTHER_KEY), ask("another guess")] == [200, 429, 429]


def test_optional_keys_let_strangers_in_but_tell_of_a_wrong_key(client: Client) -> None:
    optional = client(api_keys=KEY)

    assert optional.post("/predict", files=upload()).status_code == 200
    assert optional.post("/predict", files=upload(), headers={"X-API-Key": "wrong"}).status_code == 401


def test_auth_without_keys_refuses_to_start(toy_bundle: Path, client: Client) -> None:
    with pytest.raises(SecurityConfigError, match="API_KEYS is empty"):
        client(require_auth=True, api_keys=" , ")

    started = subprocess.run(
        [sys.executable, "-m", "serving"],
        env={"MODEL_URI": str(toy_bundle), "PORT": "0", "REQUIRE_AUTH": "true", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert started.returncode == 1
    assert started.stderr.startswith("error: REQUIRE_AUTH is set but API_KEYS is empty")
    assert len(started.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"rate_limit_predict": "many"}, "RATE_LIMIT_PREDICT='many'"),
        ({"rate_limit_storage_uri": "postgres://u:secret@h/1"}, "RATE_LIMIT_STORAGE_URI"),
    ],
)
def test_settings_that_cannot_be_read_stop_the_start_in_one_line(
    client: Client, settings: dict[str, str], names: str
) -> None:
    with pytest.raises(SecurityConfigError, match=names) as caught:
        client(**settings)
    assert "secret" not in str(caught.value)


# --- rates --------------------------------------------------------------------------------------------------


def test_the_thirty_first_request_of_a_minute_is_told_when_to_come_back(client: Client) -> None:
    limited = client()

    answers = [limited.post("/predict", files=upload()) for _ in range(31)]

    assert [a.status_code for a in answers] == [200] * 30 + [429]
    assert [int(a.headers["x-ratelimit-remaining"]) for a in answers] == [*range(29, -1, -1), 0]
    assert {a.headers["x-ratelimit-limit"] for a in answers} == {"30"}
    refused = answers[-1]
    assert refused.json()["reason"] == "rate_limited"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert abs(int(refused.headers["x-ratelimit-reset"]) - time.time() - int(refused.headers["retry-after"])) <= 2
    assert metric(limited, 'aidetect_rejected_total{reason="rate_limited"}') == 1


@pytest.mark.parametrize(("path", "limit"), [("/predict/batch", 5), ("/predict/explain", 10), ("/predict/compare", 10)])
def test_each_family_has_its_own_limit(client: Client, path: str, limit: int) -> None:
    limited = client()

    statuses = [limited.post(path, content=b"").status_code for _ in range(limit + 1)]

    assert statuses[-1] == 429
    assert 429 not in statuses[:-1]
    assert limited.post("/predict", files=upload()).status_code == 200


def test_v1_shares_the_bucket(client: Client) -> None:
    limited = client(rate_limit_predict="4/minute")

    paths = ["/predict", "/v1/predict"] * 3
    assert [limited.post(p, files=upload()).status_code for p in paths] == [200] * 4 + [429] * 2


@pytest.mark.parametrize("proxies", [0, 1])
def test_sixty_requests_with_forged_addresses_are_one_client(client: Client, proxies: int) -> None:
    limited = client(trusted_proxies=proxies)
    # with one proxy of ours, it appends what it saw; everything to the left is the client's own invention
    seen = ", 198.51.100.9" if proxies else ""

    statuses = [
        limited.post("/predict", files=upload(), headers={"X-Forwarded-For": f"10.0.0.{i}{seen}"}).status_code
        for i in range(60)
    ]

    assert statuses == [200] * 30 + [429] * 30


def test_behind_a_proxy_clients_are_told_apart(client: Client) -> None:
    limited = client(trusted_proxies=1, rate_limit_predict="1/minute")

    def ask(address: str) -> int:
        return limited.post("/predict", files=upload(), headers={"X-Forwarded-For": address}).status_code

    assert [ask("198.51.100.1"), ask("198.51.100.2"), ask("198.51.100.1")] == [200, 200, 429]


def test_keys_have_allowances_of_their_own_and_unknown_keys_none(client: Client) -> None:
    limited = client(api_keys=f"{KEY},{OTHER_KEY}", require_auth=True, rate_limit_predict="2/minute")

    def ask(key: str) -> int:
        return limited.post("/predict", files=upload(), headers={"X-API-Key": key}).status_code

    assert [ask(KEY), ask(KEY), ask(KEY), ask(OTHER_KEY)] == [200, 200, 429, 200]

    # where no keys are known, a made-up key must not open a fresh allowance
    keyless = client(rate_limit_predict="2/minute")
    statuses = [keyless.post("/predict", files=upload(), headers={"X-API-Key": f"{i}"}).status_code for i in range(3)]
    assert statuses == [200, 200, 429]


def test_limits_can_be_switched_off(client: Client) -> None:
    free = client(rate_limit_enabled=False, rate_limit_predict="1/minute")

    answers = [free.post("/predict", files=upload()) for _ in range(3)]

    assert [a.status_code for a in answers] == [200] * 3
    assert "x-ratelimit-limit" not in answers[0].headers


def test_vertex_is_limited_everywhere_but_on_vertex(client: Client) -> None:
    elsewhere = client(rate_limit_batch="1/minute")
    on_vertex = client(rate_limit_batch="1/minute", aip_http_port=8080, aip_predict_route="/vertex/predict")

    def twice(target: TestClient) -> list[int]:
        return [target.post("/vertex/predict", json={"instances": []}).status_code for _ in range(2)]

    assert twice(elsewhere)[1] == 429
    assert 429 not in twice(on_vertex)


def test_without_redis_each_process_limits_by_itself_and_says_so(client: Client) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        closed_port = probe.getsockname()[1]
    limited = client(rate_limit_predict="3/minute", rate_limit_storage_uri=f"redis://127.0.0.1:{closed_port}/0")

    statuses = [limited.post("/predict", files=upload()).status_code for _ in range(5)]

    assert statuses == [200] * 3 + [429] * 2
    # one failure, then the storage is left alone for a while
    assert metric(limited, "aidetect_rate_limit_storage_failures_total") == 1


@pytest.mark.parametrize(
    ("header", "proxies", "expected"),
    [
        ("1.1.1.1", 0, "9.9.9.9"),
        ("1.1.1.1", 1, "1.1.1.1"),
        ("6.6.6.6, 1.1.1.1, 2.2.2.2", 2, "1.1.1.1"),
        ("1.1.1.1", 2, "9.9.9.9"),
        ("6.6.6.6, not an address", 1, "9.9.9.9"),
        ("1.1.1.1:4711", 1, "1.1.1.1"),
        ("[2001:db8::1]:4711", 1, "2001:db8::1"),
        ("2001:db8::1", 1, "2001:db8::1"),
        ("", 1, "9.9.9.9"),
    ],
)
def test_client_address(header: str, proxies: int, expected: str) -> None:
    scope = {"client": ("9.9.9.9", 1), "headers": [(b"x-forwarded-for", header.encode())]}

    assert client_address(scope, proxies) == expected


def test_an_ipv6_customer_is_one_client() -> None:
    assert bucket("2001:db8:1:2:3::4") == bucket("2001:db8:1:2:ffff::1") != bucket("2001:db8:1:3::1")
    assert bucket("::ffff:1.2.3.4") == bucket("1.2.3.4")


# --- sizes --------------------------------------------------------------------------------------------------


def test_a_body_of_unknown_length_is_cut_at_the_limit(client: Client) -> None:
    limited = client(max_file_bytes=100_000)

    def chunks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 10_000

    answer = limited.post("/predict", content=chunks(), headers={"Content-Type": "multipart/form-data; boundary=b"})

    assert answer.status_code == 413
    assert answer.json()["reason"] == "request_too_large"


# --- headers ------------------------------------------------------------------------------------------------


def test_every_answer_carries_the_security_headers(client: Client) -> None:
    guarded = client(api_keys=KEY, require_auth=True)

    for answer in (guarded.get("/health"), guarded.get("/model"), guarded.get("/docs")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in guarded.get("/health").headers["content-security-policy"]
    assert guarded.get("/health").headers["cache-control"] == "no-store"
    # the documentation loads its scripts from elsewhere
    assert "frame-ancestors 'none'" in guarded.get("/docs").headers["content-security-policy"]


def test_pages_of_named_origins_may_read_answers_refusals_included(client: Client) -> None:
    shop = "https://shop.example"
    guarded = client(cors_origins=f"{shop}, https://b.example", api_keys=KEY, require_auth=True)

    preflight = guarded.options(
        "/predict",
        headers={
            "Origin": shop,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "X-API-Key",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == shop
    refused = guarded.post("/predict", headers={"Origin": shop})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == shop
    assert "X-Request-ID" in refused.headers["access-control-expose-headers"]

    stranger = guarded.post("/predict", headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
    closed = client().post("/predict", files=upload(), headers={"Origin": shop})
    assert "access-control-allow-origin" not in closed.headers
