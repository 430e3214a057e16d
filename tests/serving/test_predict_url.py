"""POST /predict with an address: off by default, only from named hosts, after the key and the rate, off the loop."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from serving.app import create_app
from serving.fetch.refusals import REASONS
from serving.settings import Settings
from tests.bundles import jpeg
from tests.serving.conftest import service_of
from tests.serving.fetch.shop import HOSTILE, Answer, Shop, ok, redirect, shop

PHOTO = jpeg(205, (90, 70), seed=3)


@contextmanager
def serving(client: TestClient, **settings: Any) -> Iterator[TestClient]:
    """Another application on the model that `client` has loaded."""
    known: dict[str, Any] = {
        "rate_limit_enabled": False,
        "slots": 1,
        "url_fetch_hosts": "127.0.0.1, localhost,.shop.example",
    }
    known |= {"url_fetch_private_hosts": "127.0.0.1", "url_fetch_timeout_s": 1.0, **settings}
    with TestClient(create_app(Settings(**known), service_of(client).champion.current)) as made:
        yield made


@pytest.fixture(scope="module")
def host() -> Iterator[Shop]:
    pages: dict[str, bytes | Answer] = {path: answer for path, (answer, _) in HOSTILE.items()}
    pages |= {"/photo.jpg": PHOTO, "/moved": redirect("/photo.jpg"), "/page": b"<html>no photo</html>"}
    pages |= {"/outside": redirect("http://elsewhere.example/"), "/large": b"x" * (10 * 2**20 + 1)}
    with shop(pages) as opened:
        yield opened


@pytest.fixture(scope="module")
def fetching(client: TestClient) -> Iterator[TestClient]:
    with serving(client) as made:
        yield made


def test_the_verdict_on_an_address_is_the_verdict_on_its_photo(fetching: TestClient, host: Shop) -> None:
    uploaded = fetching.post("/predict", files={"file": PHOTO}).json()
    for path in ("/photo.jpg", "/moved"):
        found = fetching.post("/v1/predict", json={"url": host.url(path)})
        assert found.status_code == 200
        same = {"request_id", "inference_time_ms"}
        assert {k: v for k, v in found.json().items() if k not in same} == {
            k: v for k, v in uploaded.items() if k not in same
        }
    assert fetching.get("/").json()["limits"]["url_fetch"] is True


@pytest.mark.parametrize("path", HOSTILE)
def test_every_misbehaviour_is_a_problem_with_its_reason(fetching: TestClient, host: Shop, path: str) -> None:
    # whatever is not on the list is not even looked up
    elsewhere = path in ("/metadata", "/inside", "/decimal")
    answer = fetching.post("/predict", json={"url": host.url(path)})
    reason = "host_refused" if elsewhere else HOSTILE[path][1]
    assert (answer.status_code, answer.json()["reason"]) == (422, f"url_{reason}")
    assert len(answer.json()["detail"]) < 200
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://127.0.0.1/a.jpg", "url_invalid"),
        ("file:///etc/passwd", "url_invalid"),
        ("http://user:secret@127.0.0.1/", "url_invalid"),
        ("http://127.0.0.1\r\nX: y/", "url_invalid"),
        ("photo.jpg", "url_invalid"),
        ("http://elsewhere.example/a.jpg", "url_host_refused"),
        ("http://shop.example/a.jpg", "url_host_refused"),
        ("http://cdn.shop.example.evil.test/", "url_host_refused"),
        ("http://169.254.169.254/computeMetadata/v1/", "url_host_refused"),
        ("http://[::ffff:127.0.0.1]/", "url_host_refused"),
        ("http://2130706433/", "url_host_refused"),
        # on the list, but its address is private
        ("http://localhost/", "url_address_refused"),
        ("http://no-such-host.invalid.shop.example/", "url_unresolvable"),
    ],
)
def test_no_address_leads_anywhere_else(
    fetching: TestClient, url: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def resolve(name: str, *rest: Any, **named: Any) -> object:
        if name.endswith(".shop.example"):
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        return real(name, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    answer = fetching.post("/predict", json={"url": url})
    assert (answer.status_code, answer.json()["reason"]) == (422, reason)


def test_a_name_that_turns_inside_after_it_was_allowed_is_refused(
    fetching: TestClient, host: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    def rebinding(name: str, *rest: Any, **named: Any) -> object:
        return real("127.0.0.1" if name == "cdn.shop.example" else name, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    before = sum(host.asked.values())
    answer = fetching.post("/predict", json={"url": host.url("/photo.jpg", "cdn.shop.example")})
    assert (answer.json()["reason"], sum(host.asked.values())) == ("url_address_refused", before)


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/outside", 422, "url_host_refused"),
        ("/large", 422, "url_too_large"),
        ("/page", 415, "unsupported_type"),
    ],
)
def test_what_comes_is_no_photo(fetching: TestClient, host: Shop, path: str, status: int, reason: str) -> None:
    answer = fetching.post("/predict", json={"url": host.url(path)})
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"{", 422, "invalid_request"),
        (b"[]", 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
        (b'{"url": 5}', 422, "invalid_request"),
        (b'{"url": ""}', 422, "invalid_request"),
        (b'{"url": "http://127.0.0.1/", "host": "x"}', 422, "invalid_request"),
        (b'{"url": "\xff"}', 422, "invalid_request"),
        (json.dumps({"url": "http://127.0.0.1/" + "a" * 5000}).encode(), 422, "invalid_request"),
        (b"[" * 20_000, 422, "invalid_request"),
        (b'{"url": "' + b"a" * 40_000, 413, "request_too_large"),
    ],
)
def test_a_body_that_names_no_address(fetching: TestClient, body: bytes, status: int, reason: str) -> None:
    answer = fetching.post("/predict", content=body, headers={"Content-Type": "application/json; charset=utf-8"})
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)


def test_nothing_is_fetched_where_no_host_is_named(client: TestClient, host: Shop) -> None:
    before = sum(host.asked.values())
    answer = client.post("/predict", json={"url": host.url("/photo.jpg")})
    assert (answer.status_code, answer.json()["reason"]) == (409, "url_fetch_disabled")
    assert client.get("/").json()["limits"]["url_fetch"] is False
    assert sum(host.asked.values()) == before


def test_nothing_is_fetched_before_the_key_and_the_rate(client: TestClient, host: Shop) -> None:
    asked = {"url": host.url("/photo.jpg")}
    before = host.asked["/photo.jpg"]
    with serving(
        client, api_keys="sesame", require_auth=True, rate_limit_enabled=True, rate_limit_predict="1/hour"
    ) as app:
        assert app.post("/predict", json=asked).status_code == 401
        assert host.asked["/photo.jpg"] == before
        key = {"X-API-Key": "sesame"}
        assert [app.post("/predict", json=asked, headers=key).status_code for _ in range(3)] == [200, 429, 429]
    assert host.asked["/photo.jpg"] == before + 1


def test_a_slow_host_holds_up_its_own_caller_only(client: TestClient) -> None:
    """The loop and the engine are free meanwhile; all places taken: 503; a place is free again after its fetch."""
    go_on = threading.Event()

    def held(connection: socket.socket) -> None:
        assert go_on.wait(60)
        connection.sendall(ok(PHOTO))

    with (
        shop({"/held": held, "/photo.jpg": PHOTO}) as host,
        serving(client, url_fetch_places=1, url_fetch_timeout_s=60.0, request_timeout_s=60.0) as app,
        ThreadPoolExecutor(1) as caller,
    ):
        try:
            waiting = caller.submit(app.post, "/predict", json={"url": host.url("/held")})
            until = time.monotonic() + 60
            while not host.asked["/held"] and time.monotonic() < until:
                time.sleep(0.01)
            assert app.get("/healthz").status_code == 200
            assert app.post("/predict", files={"file": PHOTO}).status_code == 200
            refused = app.post("/predict", json={"url": host.url("/photo.jpg")})
            assert (refused.status_code, refused.json()["reason"]) == (503, "overloaded")
            assert refused.headers["retry-after"] == "1"
            assert not waiting.done()
        finally:
            go_on.set()
        assert waiting.result().status_code == 200
        assert app.post("/predict", json={"url": host.url("/photo.jpg")}).status_code == 200


def test_what_is_fetched_counts_as_a_body_that_is_received(client: TestClient, host: Shop) -> None:
    most = 10 * 2**20
    with serving(client, max_batch_bytes=most, max_buffered_bytes=3 * most) as app:
        asked = {"url": host.url("/photo.jpg")}
        assert app.post("/predict", json=asked).status_code == 200
        with service_of(app).budget.account("another") as body:
            body.take(3 * most // 2)
            assert app.post("/predict", json=asked).status_code == 200
            with service_of(app).budget.account("a third") as second:
                second.take(3 * most // 4)
                answer = app.post("/predict", json=asked)
        assert (answer.status_code, answer.json()["reason"]) == (503, "overloaded")


@pytest.mark.parametrize(
    "settings",
    [
        {"url_fetch_hosts": "https://cdn.shop.example"},
        {"url_fetch_hosts": "*"},
        {"url_fetch_hosts": "cdn.shop.example/photos"},
        {"url_fetch_private_hosts": ".shop.example"},
    ],
)
def test_a_list_that_is_no_list_of_hosts_is_refused_at_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="host"):
        Settings(**settings)


def test_the_description_names_the_address_and_every_reason(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert set(operation["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    examples = operation["responses"]["422"]["content"]["application/problem+json"]["examples"]
    assert {f"url_{reason.removeprefix('url_')}" for reason in REASONS} <= set(examples)
    assert "url_fetch_disabled" in operation["responses"]["409"]["content"]["application/problem+json"]["examples"]
