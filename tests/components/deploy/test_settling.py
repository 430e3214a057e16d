"""The smoke test where traffic was moved a moment ago: asked until the version answers, or time is up."""

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import pytest

from components.deploy.smoke import Answer, Example, HttpProber, smoke
from serving.platform.errors import NotAnsweringError, OtherVersionError, SmokeError
from tests.fakes.loopback import LoopbackServer

EXAMPLES = [Example("a", b"", "real", 0.1), Example("b", b"", "ai_generated", 0.9)]


class Lagging:
    """Answers by the old version some times before it answers by the new one."""

    def __init__(self, times: int) -> None:
        self.left = times

    def ask(self, name: str, image: bytes) -> Answer:
        self.left -= 1
        version = "1" if self.left >= 0 else "2"
        return Answer("real", 0.1, version) if name == "a" else Answer("ai_generated", 0.9, version)


def test_the_old_version_may_answer_for_some_seconds() -> None:
    assert smoke(Lagging(3), EXAMPLES, "2", 0.01, 10.0, settle_s=10.0).examples == 2


def test_it_may_not_for_ever_nor_where_nothing_was_moved() -> None:
    with pytest.raises(OtherVersionError, match="version 1 answers, expected 2"):
        smoke(Lagging(1000), EXAMPLES, "2", 0.01, 10.0, settle_s=1.5)
    lagging = Lagging(2)
    with pytest.raises(OtherVersionError):
        smoke(lagging, EXAMPLES, "2", 0.01, 10.0)
    assert lagging.left == 0


@pytest.fixture
def answering() -> Iterator[Callable[..., str]]:
    """Starts a server that answers 404, or at length 200, with a content type; returns its address."""
    servers = []

    def start(kind: str, status: int = 404, said: bytes = b"") -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(LoopbackServer(Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_front_end_that_does_not_know_the_address_yet_is_asked_again(answering: Callable[..., str]) -> None:
    with pytest.raises(NotAnsweringError, match="not known yet"):
        HttpProber(answering("text/html; charset=UTF-8"), 5.0).ask("a", b"x")
    with pytest.raises(SmokeError, match="answered 404"):
        HttpProber(answering("application/problem+json"), 5.0).ask("a", b"x")


def test_what_no_server_of_ours_says_is_not_read_whole(answering: Callable[..., str]) -> None:
    url = answering("application/json", 200, b" " * (9 << 20))
    with pytest.raises(SmokeError, match=r"/predict gave a an answer of more than 8 MiB or 30 s; is it this project's"):
        HttpProber(url, 5.0).ask("a", b"x")
    with pytest.raises(SmokeError, match="answered 200 without a verdict"):
        HttpProber(answering("application/json", 200, b"[" * 100_000), 5.0).ask("a", b"x")
