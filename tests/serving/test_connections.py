"""The end of a connection, over real sockets: no request is lost because its connection was idle a moment ago."""

import time
from http.client import HTTPConnection
from pathlib import Path

import pytest

from serving.connections import LINGER_S
from tests.serving.processes import Server, serve


def connection(server: Server) -> HTTPConnection:
    """A kept-alive connection that has been used once."""
    opened = HTTPConnection("127.0.0.1", server.port, timeout=10)
    assert ask(opened) == (200, None)
    return opened


def ask(opened: HTTPConnection) -> tuple[int, str | None]:
    """Status and `Connection` of one answer."""
    opened.request("GET", "/healthz")
    answer = opened.getresponse()
    answer.read()
    return answer.status, answer.getheader("connection")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_request_on_an_idle_connection_is_answered_after_term(toy_bundle: Path, tmp_path: Path, workers: str) -> None:
    with serve(toy_bundle, tmp_path / "log", WORKERS=workers, TMPDIR=str(tmp_path)) as server:
        asks, silent = connection(server), connection(server)
        server.process.terminate()
        pause_s = LINGER_S * 0.4
        time.sleep(pause_s)
        # workers hear of it from their supervisor, a little later
        while (answer := ask(asks)) == (200, None):
            time.sleep(pause_s)
        assert answer == (200, "close")
        assert asks.sock is None
        # and one that asks nothing does not hold the server up
        assert server.process.wait(10) == 0
        assert silent.sock.recv(1) == b""
