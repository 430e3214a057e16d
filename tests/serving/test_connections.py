"""The end of a connection, over real sockets: no request is lost because its connection was idle a moment ago."""

import socket
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from serving.http.connections import LINGER_S
from tests.serving.processes import Server, serve


def connection(server: Server) -> HTTPConnection:
    """A kept-alive connection that has been used once."""
    opened = HTTPConnection("127.0.0.1", server.port, timeout=60)
    assert ask(opened) == (200, None)
    return opened


def ask(opened: HTTPConnection) -> tuple[int, str | None]:
    """Status and `Connection` of one answer."""
    opened.request("GET", "/healthz")
    answer = opened.getresponse()
    answer.read()
    return answer.status, answer.getheader("connection")


TRIES = 8


def played(scene: Callable[[float], None]) -> None:
    """A scene whose pauses, in seconds, are shorter than the server's. Where the machine holds either of the two up for
    longer, its connection is lost and it is played again, quicker; a server that does not linger loses each of them."""
    for number in range(TRIES):
        try:
            scene(LINGER_S * 0.4 / (number + 1))
            return
        except (OSError, HTTPException):
            if number + 1 == TRIES:
                raise


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.system)])  # three processes import
def test_a_request_on_an_idle_connection_is_answered_after_term(toy_bundle: Path, tmp_path: Path, workers: str) -> None:
    def scene(pause_s: float) -> None:
        with serve(toy_bundle, tmp_path / "log", WORKERS=workers, TMPDIR=str(tmp_path)) as server:
            asks, silent = connection(server), connection(server)
            server.process.terminate()
            time.sleep(pause_s)
            # workers hear of it from their supervisor, a little later
            while (answer := ask(asks)) == (200, None):
                time.sleep(pause_s)
            assert answer == (200, "close")
            assert asks.sock is None
            # and one that asks nothing does not hold the server up
            assert server.process.wait(60) == 0
            assert silent.sock.recv(1) == b""

    played(scene)


BODY_BYTES = 400_000


def refused_early(to: socket.socket, *headers: str) -> bytes:
    """The answer to a request that is refused while most of its body is still to come."""
    lines = ("POST /nothing HTTP/1.1", "Host: test", f"Content-Length: {BODY_BYTES}", *headers, "", "")
    to.sendall("\r\n".join(lines).encode() + bytes(10_000))
    answer = b""
    while b'"reason"' not in answer or not answer.endswith(b"}"):
        part = to.recv(65536)
        if not part:
            raise ConnectionError(answer)
        answer += part
    assert answer.startswith(b"HTTP/1.1 404 ")
    return answer.lower()


def send_the_rest(to: socket.socket, within_s: float) -> None:
    left = BODY_BYTES - 10_000
    for size in (1000, 1000, left - 2000):
        # a reset would be known by the next piece
        time.sleep(within_s / 4)
        to.sendall(bytes(size))


def test_an_answer_before_the_end_of_its_request_is_not_torn_away(toy_bundle: Path, tmp_path: Path) -> None:
    with serve(toy_bundle, tmp_path / "log") as server:

        def sends_on(pause_s: float) -> None:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as asks:
                assert b"connection: close" in refused_early(asks, "Connection: close")
                send_the_rest(asks, pause_s)
                assert asks.recv(1) == b""

        played(sends_on)
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as stalls:
            started = time.monotonic()
            refused_early(stalls, "Connection: close")
            assert stalls.recv(1) == b""
            # not before, and not only with the client's patience; a loaded machine takes its time
            assert LINGER_S * 0.8 < time.monotonic() - started < 50


def test_nor_is_it_while_the_server_stops(toy_bundle: Path, tmp_path: Path) -> None:
    def scene(pause_s: float) -> None:
        with serve(toy_bundle, tmp_path / "log") as server:
            opened = connection(server)
            server.process.terminate()
            time.sleep(pause_s)
            assert b"connection: close" in refused_early(opened.sock)
            send_the_rest(opened.sock, pause_s)
            assert opened.sock.recv(1) == b""
            assert server.process.wait(60) == 0

    played(scene)
