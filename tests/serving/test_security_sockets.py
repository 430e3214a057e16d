"""Keys, sizes and rates act on the headers alone: raw sockets to a real server."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.serving.processes import Server, serve

KEY = "a-key-of-decent-length"
AT_ONCE_S = 10.0
"""On a loaded machine, too; who waits for a body that does not come waits three times as long."""


@pytest.fixture(scope="module")
def server(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    env = {
        "API_KEYS": KEY,
        "REQUIRE_AUTH": "true",
        "RATE_LIMIT_ENABLED": "true",
        "RATE_LIMIT_EXPLAIN": "1/hour",
        "SLOTS": "1",
    }
    with serve(toy_bundle, log, **env) as running:
        yield running


def send_headers(port: int, *lines: str, body: bytes = b"") -> tuple[int, dict[str, object], float]:
    """Send a POST's headers (and `body`) and no more; the answer's status, document, and seconds until it was whole."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=2 * AT_ONCE_S)) as connection:
        started = time.perf_counter()
        head = "\r\n".join([*lines, "Host: x", "Content-Type: multipart/form-data; boundary=b"])
        connection.sendall(head.encode() + b"\r\n\r\n" + body)
        received = b""
        while b"\r\n\r\n" not in received or not _is_whole(received):
            piece = connection.recv(65536)
            assert piece, f"closed early after {received!r}"
            received += piece
        seconds = time.perf_counter() - started
    head_bytes, _, document = received.partition(b"\r\n\r\n")
    return int(head_bytes[9:12]), json.loads(document), seconds


def _is_whole(received: bytes) -> bool:
    head, _, document = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return len(document) >= length


@pytest.mark.parametrize("path", ["/predict", "/v1/predict/batch", "/v2/models/m/infer"])
def test_a_client_that_stalls_after_its_headers_gets_its_401_at_once(server: Server, path: str) -> None:
    status, document, seconds = send_headers(server.port, f"POST {path} HTTP/1.1", "Content-Length: 5000000")

    assert (status, document["reason"]) == (401, "unauthorized")
    assert seconds < AT_ONCE_S


@pytest.mark.parametrize(
    ("path", "length"),
    [
        ("/predict", 20_000_000),
        ("/predict/batch", 60_000_000),
        ("/predict/explain", 11_000_000),
        ("/feedback", 2_000_000),
    ],
)
def test_a_client_that_stalls_after_its_headers_gets_its_413_at_once(server: Server, path: str, length: int) -> None:
    lines = (f"POST {path} HTTP/1.1", f"X-API-Key: {KEY}", f"Content-Length: {length}")
    status, document, seconds = send_headers(server.port, *lines)

    assert (status, document["reason"]) == (413, "request_too_large")
    assert seconds < AT_ONCE_S


def test_a_client_that_stalls_after_its_headers_gets_its_429_at_once(server: Server) -> None:
    lines = ("POST /predict/explain HTTP/1.1", f"X-API-Key: {KEY}")
    send_headers(server.port, *lines, "Content-Length: 0")

    status, document, seconds = send_headers(server.port, *lines, "Content-Length: 5000000")

    assert (status, document["reason"]) == (429, "rate_limited")
    assert seconds < AT_ONCE_S


def test_a_stream_without_end_gets_its_413_while_it_is_still_sending(server: Server) -> None:
    lines = ("POST /predict HTTP/1.1", f"X-API-Key: {KEY}", "Transfer-Encoding: chunked")
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    chunk = b"%x\r\n" % 1_000_000 + b"x" * 1_000_000 + b"\r\n"

    status, document, _ = send_headers(server.port, *lines, body=b"%x\r\n" % len(head) + head + b"\r\n" + chunk * 12)

    assert (status, document["reason"]) in {(413, "request_too_large"), (413, "file_too_large")}


def test_a_refused_upload_still_reads_its_answer_when_it_sends_everything_first(server: Server) -> None:
    body = b"x" * 20_000_000
    status, document, seconds = send_headers(
        server.port, "POST /predict HTTP/1.1", f"X-API-Key: {KEY}", f"Content-Length: {len(body)}", body=body
    )

    assert (status, document["reason"]) == (413, "request_too_large")
    assert seconds < AT_ONCE_S
