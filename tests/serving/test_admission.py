"""Connections and request heads are bounded before anything is parsed: raw sockets to a real server."""

import contextlib
import gzip
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from serving.http.connections import MAX_HEAD_BYTES, MAX_HEAD_LINES, MAX_TARGET_BYTES
from tests.serving.processes import Server, serve

HEADER_TIMEOUT_S = 3.0
"""Whole heads come within it on a loaded machine, too."""
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture(scope="module")
def server(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("server") / "log"
    env = {"HEADER_TIMEOUT_S": str(HEADER_TIMEOUT_S), "REQUIRE_AUTH": "true", "API_KEYS": "a-key-of-decent-length"}
    with serve(toy_bundle, log, SLOTS="1", **env) as running:
        yield running


def connect(server: Server, source: str = "127.0.0.2") -> socket.socket:
    """A connection from an address of the attacker's own."""
    return socket.create_connection(("127.0.0.1", server.port), timeout=60, source_address=(source, 0))


def answer_to(opened: socket.socket, *pieces: bytes) -> tuple[int, dict[str, object]]:
    """Status and document; what cannot be sent any more because the answer came first is no error."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for piece in pieces:
            opened.sendall(piece)
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := opened.recv(65536):
            received += part
    head, _, document = received.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head, received[:200]
    return int(head[9:12]), json.loads(document)


HEADS = {
    "one long header": ([GET, b"x: ", *[b"a" * 65536] * 64], 431),
    "one long name": ([GET, *[b"a" * 65536] * 64], 431),
    "many bytes of headers": ([GET, *[b"x: %s\r\n" % (b"a" * 4000)] * 1000], 431),
    "many lines": ([GET, b"a:b\r\n" * (MAX_HEAD_LINES + 1)], 431),
    "a long target": ([b"GET /" + b"a" * (MAX_TARGET_BYTES + 1) + b" HTTP/1.1\r\n"], 414),
    "a target without end": ([b"GET /", *[b"a" * 65536] * 64], 414),
    "a long query": ([b"GET /healthz?" + b"a" * MAX_TARGET_BYTES + b" HTTP/1.1\r\n"], 414),
    "no Host": ([b"GET /healthz HTTP/1.1\r\nAccept: */*\r\n\r\n"], 400),
    "two Hosts": ([GET, b"Host: y\r\n\r\n"], 400),
    "no HTTP": ([b"\x16\x03\x01 hello\r\n\r\n"], 400),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_over_the_bounds_is_refused_before_it_is_read_and_costs_nothing(server: Server, name: str) -> None:
    pieces, status = HEADS[name]
    before = server.peak_mib()
    spent = server.cpu_s()
    with connect(server) as opened:
        found, document = answer_to(opened, *pieces)
    assert found == status
    assert document["status"] == status
    assert document["request_id"]
    assert server.peak_mib() - before < 8
    assert server.cpu_s() - spent < 1.0


def whole_answer(opened: socket.socket) -> bytes:
    """One answer to the end of its body; its head may come by itself."""
    received = b""
    while not received.endswith(b"}"):
        part = opened.recv(65536)
        assert part, received
        received += part
    return received


def test_http_1_0_needs_no_host(server: Server) -> None:
    with connect(server) as opened:
        opened.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert whole_answer(opened).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("path", ["/predict", "/v1/predict/batch", "/feedback", "/vertex/predict"])
def test_an_encoded_body_is_told_so(server: Server, path: str) -> None:
    headers = {"X-API-Key": "a-key-of-decent-length", "Content-Type": "application/json"}
    coded = httpx.post(server.url + path, headers=headers | {"Content-Encoding": "gzip"}, content=gzip.compress(b"{}"))
    assert (coded.status_code, coded.json()["reason"]) == (415, "unsupported_media_type")
    assert "encoded as gzip" in coded.json()["detail"] and "without Content-Encoding" in coded.json()["detail"]
    assert coded.headers["Accept-Encoding"] == "identity"
    plain = httpx.post(server.url + path, headers=headers | {"Content-Encoding": "Identity"}, content=b"{}")
    assert "encoded" not in plain.json()["detail"]


def test_what_cannot_be_seen_is_escaped(server: Server) -> None:
    detail = httpx.get(f"{server.url}/predict%0a%E2%80%AE%1b[31m").json()["detail"]
    assert detail == "no route /predict\\n\\u202e\\x1b[31m; /docs lists them"


def test_a_head_just_below_the_bounds_is_served(server: Server) -> None:
    room = MAX_HEAD_BYTES - len(GET) - 100
    with connect(server) as opened:
        opened.sendall(GET + b"x: %s\r\n\r\n" % (b"a" * room))
        assert whole_answer(opened).startswith(b"HTTP/1.1 200 ")
        opened.sendall(GET + b"a:b\r\n" * (MAX_HEAD_LINES - 1) + b"\r\n")
        assert whole_answer(opened).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("after", [b"1\r\nx\r\n0\r\n", b"1\r\nx\r\n1;"])
def test_trailers_and_chunk_extensions_are_bounded_too(server: Server, after: bytes) -> None:
    before = server.peak_mib()
    with connect(server) as opened:
        opened.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + after)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(200):
                opened.sendall(b"a" * 65536)
                time.sleep(0.01)
    assert server.peak_mib() - before < 8


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(("chunk", "status"), [(b"zz\r\n", 400), (b"1;" + b"x" * 200_000, 431)])
def test_a_body_that_is_no_http_is_told_so(server: Server, chunk: bytes, status: int, together: bool) -> None:
    head = [b"POST /predict HTTP/1.1", b"Host: x", b"X-API-Key: a-key-of-decent-length", b"Transfer-Encoding: chunked"]
    head += [b"Content-Type: multipart/form-data; boundary=b", b"", b"5", b"--b\r\n", b""]
    pieces = b"\r\n".join(head), chunk
    with connect(server) as opened:
        found, document = answer_to(opened, *([b"".join(pieces)] if together else pieces))
    assert (found, document["status"]) == (status, status)
    assert httpx.get(f"{server.url}/healthz").status_code == 200


CHUNKED = b"\r\n".join(
    [
        b"POST /predict HTTP/1.1",
        b"Host: x",
        b"X-API-Key: a-key-of-decent-length",
        b"Transfer-Encoding: chunked",
        b"Content-Type: multipart/form-data; boundary=b",
        b"Connection: close",
        b"",
        b"",
    ]
)
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'


def test_a_body_may_not_be_all_but_data(server: Server) -> None:
    begun = b"%x\r\n%s\r\n" % (len(PART), PART)
    with connect(server) as opened:
        # some data in whatever is read at a time
        found, document = answer_to(opened, CHUNKED, begun, *[b"1;%s\r\nx\r\n" % (b"x" * 3000)] * 40)
    assert found == 431, document


def test_a_body_in_chunks_of_a_byte_is_read(server: Server) -> None:
    body = PART + b"no picture" * 2000 + b"\r\n--b--\r\n"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with connect(server) as opened:
        found, document = answer_to(opened, CHUNKED, chunks)
    assert (found, document["reason"]) == (415, "unsupported_type"), document


def test_pipelined_requests_are_bounded(server: Server) -> None:
    before = server.peak_mib()
    with connect(server) as opened, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(50):
            opened.sendall((GET + b"\r\n") * 2000)
    assert httpx.get(f"{server.url}/healthz").status_code == 200
    assert server.peak_mib() - before < 16


@pytest.mark.parametrize("drips", [b"", b"G"], ids=["silent", "dripping"])
def test_a_connection_without_a_whole_head_is_closed(server: Server, drips: bytes) -> None:
    with connect(server) as opened:
        # the second request of a connection has no more time than the first
        opened.sendall(GET + b"\r\n")
        assert whole_answer(opened).startswith(b"HTTP/1.1 200 ")
        opened.settimeout(0.2)
        deadline = time.monotonic() + HEADER_TIMEOUT_S + 60
        opened.sendall(drips and GET)
        while time.monotonic() < deadline:
            try:
                opened.sendall(drips and b"a")
                if opened.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("still open")


def test_a_client_that_never_reads_its_answers_is_let_go(server: Server) -> None:
    with connect(server) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.settimeout(1)
        with contextlib.suppress(OSError):
            while True:
                opened.sendall((b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n") * 8)
        # it may still be waited for at the end, but not for ever
    assert httpx.get(f"{server.url}/healthz").status_code == 200


@pytest.mark.parametrize("env", [{"MOST_FILES": "64"}, {"MAX_CONNECTIONS": "30"}], ids=["limit on files", "setting"])
def test_a_flood_of_idle_connections_takes_nobodys_place(toy_bundle: Path, tmp_path: Path, env: dict[str, str]) -> None:
    with ExitStack() as opened:
        server = opened.enter_context(serve(toy_bundle, tmp_path / "log", SLOTS="1", **env))
        honest = opened.enter_context(httpx.Client(base_url=server.url))
        flood = [opened.enter_context(connect(server)) for _ in range(100)]
        for some in flood:
            with contextlib.suppress(OSError):
                some.sendall(GET)
        for _ in range(5):
            assert honest.get("/healthz").status_code == 200
            assert httpx.get(f"{server.url}/readyz").status_code == 200
        assert "Traceback" not in server.log
        assert "Too many open files" not in server.log
