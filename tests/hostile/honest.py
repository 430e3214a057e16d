"""The honest client: two photos a second from an address of its own, in a process of its own."""

import multiprocessing
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event

import httpx

from tests.hostile import bodies

INTERVAL_S = 0.5
TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Asked:
    """One request of the honest client."""

    at: float
    status: int
    """0: no answer at all."""
    seconds: float


def _ask(url: str, source: str, key: str, ready: Event, stop: Event, results: Connection) -> None:
    transport = httpx.HTTPTransport(local_address=source)
    headers = {"X-API-Key": key} if key else {}
    asked: list[Asked] = []
    with httpx.Client(base_url=url, transport=transport, timeout=TIMEOUT_S, headers=headers) as client:
        bodies.photo()
        ready.set()
        due = time.monotonic()
        while not stop.is_set():
            started = time.monotonic()
            try:
                status = client.post("/predict", files={"file": ("photo.jpg", bodies.photo())}).status_code
            except httpx.TransportError:
                status = 0
            asked.append(Asked(started, status, time.monotonic() - started))
            due = max(due + INTERVAL_S, time.monotonic())
            stop.wait(max(0.0, due - time.monotonic()))
    results.send(asked)


class Honest:
    """Runs the client while a `with` block lasts; `asked` holds what it got, afterwards."""

    def __init__(self, url: str, key: str = "", source: str = "127.0.0.77") -> None:
        context = multiprocessing.get_context("spawn")
        self.asked: list[Asked] = []
        self._ready, self._stop = context.Event(), context.Event()
        self._results, theirs = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_ask, args=(url, source, key, self._ready, self._stop, theirs), daemon=True
        )

    def __enter__(self) -> "Honest":
        """Start, and wait until it asks."""
        self._process.start()
        self._ready.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and take the results."""
        self._stop.set()
        if self._results.poll(TIMEOUT_S + 5):
            self.asked = self._results.recv()
        self._process.join(5)
