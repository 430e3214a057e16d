"""The attacks: each goes on until it is told to stop, from an address of its own, and counts what it is answered."""

import contextlib
import itertools
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

from tests.hostile import bodies
from tests.hostile.bodies import BOUNDARY, form

MULTIPART = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}


@dataclass
class Attacker:
    """One hostile client."""

    host: str
    port: int
    source: str
    stop: threading.Event
    answers: Counter[str] = field(default_factory=Counter)
    """Statuses, or how a connection ended."""

    def connect(self, timeout_s: float = 10.0) -> socket.socket:
        """A connection from the attacker's address."""
        return socket.create_connection((self.host, self.port), timeout_s, source_address=(self.source, 0))

    def ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """One request; its outcome is counted."""
        opened = HTTPConnection(self.host, self.port, timeout=30, source_address=(self.source, 0))
        try:
            opened.request(method, path, body or None, headers or {})
            answer = opened.getresponse()
            answer.read()
            self.answers[
                f"{answer.status}" + ("" if answer.status < 500 or answer.getheader("retry-after") else "!")
            ] += 1
        except (OSError, HTTPException) as error:
            self.answers[type(error).__name__] += 1
        finally:
            opened.close()

    def rest(self, seconds: float) -> bool:
        """Wait; whether to go on."""
        return not self.stop.wait(seconds)


Attack = Callable[[Attacker], None]
ATTACKS: dict[str, Attack] = {}


def attack(pause_s: float) -> Callable[[Callable[[Attacker, int], None]], Attack]:
    """Registers an attack that is repeated with a pause."""

    def register(once: Callable[[Attacker, int], None]) -> Attack:
        def repeated(attacker: Attacker) -> None:
            for number in itertools.count():
                once(attacker, number)
                if not attacker.rest(pause_s):
                    return

        ATTACKS[once.__name__.replace("_", " ")] = repeated
        return repeated

    return register


@attack(0.5)
def vertex_bombs(attacker: Attacker, number: int) -> None:
    bombs = bodies.vertex_bombs()
    attacker.ask("POST", "/vertex/predict", bombs[number % len(bombs)], {"Content-Type": "application/json"})


@attack(0.5)
def v2_bombs(attacker: Attacker, number: int) -> None:
    bombs = bodies.v2_bombs()
    body, headers = bombs[number % len(bombs)]
    attacker.ask("POST", "/v2/models/ai-product-photo-detector/infer", body, headers)


@attack(1.0)
def hidden_scans(attacker: Attacker, _: int) -> None:
    attacker.ask("POST", "/predict", form(bodies.scans()), MULTIPART)


@attack(1.5)
def costly_pictures(attacker: Attacker, number: int) -> None:
    picture = (bodies.huge_progressive, bodies.chunks, bodies.metadata, lambda: bodies.profiles(number % 6))[
        number % 4
    ]()
    attacker.ask("POST", "/predict", form(picture), MULTIPART)


@attack(12.0)
def batches_of_huge_pictures(attacker: Attacker, _: int) -> None:
    attacker.ask("POST", "/predict/batch", form(*[bodies.flat_png()] * 10, field="files"), MULTIPART)


@attack(0.3)
def endless_headers(attacker: Attacker, number: int) -> None:
    line = b"x: " + b"a" * 4000 + b"\r\n" if number % 2 else b"a" * 65536
    with _counted(attacker, "closed"), attacker.connect() as opened:
        opened.sendall(b"GET / HTTP/1.1\r\nHost: x\r\ny: ")
        for _ in range(600):
            opened.sendall(line)


@attack(3.0)
def idle_connections(attacker: Attacker, _: int) -> None:
    with contextlib.ExitStack() as held, _counted(attacker, "closed"):
        for number in range(400):
            opened = held.enter_context(attacker.connect(2))
            with contextlib.suppress(OSError):
                opened.sendall(b"GET /heal" if number % 2 else b"")
        attacker.answers["400 held"] += 1
        attacker.rest(2.0)


@attack(2.0)
def slow_bodies(attacker: Attacker, _: int) -> None:
    head = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n"
        b"Content-Type: multipart/form-data; boundary=%s\r\n\r\n"
        b'--%s\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' % (BOUNDARY, BOUNDARY)
    )
    with contextlib.ExitStack() as held, _counted(attacker, "closed"):
        for _ in range(28):
            opened = held.enter_context(attacker.connect(2))
            with contextlib.suppress(OSError):
                opened.sendall(head + bytes(8_000_000))
        attacker.answers["28 held"] += 1
        attacker.rest(10.0)


@attack(2.0)
def answers_nobody_reads(attacker: Attacker, _: int) -> None:
    with contextlib.ExitStack() as held, _counted(attacker, "closed"):
        for _ in range(10):
            opened = held.enter_context(attacker.connect(1))
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with contextlib.suppress(OSError):
                opened.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        attacker.answers["10 held"] += 1
        attacker.rest(5.0)


@attack(0.05)
def odd_paths(attacker: Attacker, number: int) -> None:
    path = ("/predict%0a", "/predict%2F%2F", "//predict", "/PREDICT", "/predict;x", "/predict/")[number % 6]
    attacker.ask("POST", path, form(bodies.photo()), MULTIPART)


@attack(0.05)
def key_guesses(attacker: Attacker, number: int) -> None:
    attacker.ask("GET", "/model", headers={"X-API-Key": f"guess-{number}"})


@attack(0.1)
def scrapes(attacker: Attacker, number: int) -> None:
    attacker.ask("GET", ("/metrics", "/drift", "/model", "/openapi.json", "/health")[number % 5])


@contextlib.contextmanager
def _counted(attacker: Attacker, name: str) -> Iterator[None]:
    try:
        yield
        attacker.answers["sent"] += 1
    except OSError:
        attacker.answers[name] += 1
