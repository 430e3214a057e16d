"""A light HTTP load generator in a process of its own; prints one JSON line.

`python -m tests.bench.serving_load PORT PATH IMAGE --clients 8 --seconds 5` keeps `clients` connections busy.
`--requests N` sends N requests instead. `--probe` also asks /healthz every 20 ms on a connection of its own.
"""

import argparse
import json
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.serving.processes import Server

BOUNDARY = b"----bench"


def multipart(field: str, data: bytes) -> bytes:
    """One file as a multipart body."""
    head = b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="x.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    return head % (BOUNDARY, field.encode()) + data + b"\r\n--" + BOUNDARY + b"--\r\n"


def request(method: str, path: str, body: bytes = b"", accept: str = "*/*") -> bytes:
    """The bytes of an HTTP/1.1 request."""
    lines = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAccept: {accept}\r\nContent-Length: {len(body)}\r\n".encode()
    if body:
        lines += b"Content-Type: multipart/form-data; boundary=" + BOUNDARY + b"\r\n"
    return lines + b"\r\n" + body


class Connection:
    """A kept connection with one request at a time under way; as light as can be, for it shares the server's cores."""

    def __init__(self, port: int, message: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._message = message
        self._answer = b""
        self._sent_at = 0.0

    def ask(self) -> None:
        """Send the request."""
        self._answer = b""
        self._sent_at = time.perf_counter()
        self.socket.sendall(self._message)

    def read(self) -> tuple[int, float] | None:
        """Read what is there: status and seconds once the answer is complete."""
        received = self.socket.recv(1 << 20)
        if not received:
            raise ConnectionError("the server closed the connection before its answer was complete")
        self._answer += received
        head, end, body = self._answer.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]):
            return None
        return int(head[9:12]), time.perf_counter() - self._sent_at


def run(args: argparse.Namespace) -> dict[str, object]:
    """Run the load and return what was seen; times in milliseconds."""
    message = request("POST", args.path, multipart(args.field, args.image.read_bytes()), args.accept)
    times: list[float] = []
    health: list[float] = []
    codes: list[int] = []
    started = time.perf_counter()
    until = started + args.seconds
    left = args.requests or 10**9
    probe = Connection(args.port, request("GET", "/healthz")) if args.probe else None
    probe_at = started if probe else float("inf")
    under_way = 0
    with selectors.DefaultSelector() as ready:
        for connection in [Connection(args.port, message) for _ in range(min(args.clients, left))]:
            ready.register(connection.socket, selectors.EVENT_READ, connection)
            connection.ask()
            under_way, left = under_way + 1, left - 1
        if probe:
            ready.register(probe.socket, selectors.EVENT_READ, probe)
        while under_way:
            if (now := time.perf_counter()) >= probe_at and probe:
                probe_at = float("inf")
                probe.ask()
            for key, _ in ready.select(min(1.0, max(0.0, probe_at - now))):
                answered: Connection = key.data
                if (outcome := answered.read()) is None:
                    continue
                status, seconds = outcome
                if answered is probe:
                    health.append(seconds)
                    probe_at = time.perf_counter() + 0.02
                    continue
                codes.append(status)
                times.append(seconds)
                if left > 0 and time.perf_counter() < until:
                    left -= 1
                    answered.ask()
                else:
                    under_way -= 1
                    ready.unregister(answered.socket)
                    answered.socket.close()
    return {
        "wall_s": time.perf_counter() - started,
        "statuses": {str(code): codes.count(code) for code in sorted(set(codes))},
        "ms": [round(t * 1e3, 3) for t in times],
        "health_ms": [round(t * 1e3, 3) for t in health],
    }


def measure(server: Server, path: str, image: Path, *options: str, slots: int = 1) -> dict[str, Any]:
    """Load a server from another process.

    Adds, an answered request: `n`; `errors`, all but 200; `cpu_ms`, the server's time; `http_ms`, the part of it that
    was not decode and engine. Those run in slots, threads that do nothing else (but take a job and hand back its
    result, a tenth of a millisecond); so it is the time of all threads but the `slots` busiest beside the event loop.
    Read from the threads' own clocks and not as the difference to a run in-process: between requests a slot rests, and
    after a rest of a millisecond its next image takes up to a millisecond more, with or without HTTP.
    """
    command = [sys.executable, "-m", "tests.bench.serving_load", str(server.port), path, str(image), *options]
    before, threads_before = server.cpu_s(), server.threads_s()
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    spent, threads = server.cpu_s() - before, server.threads_s()
    others = [s - threads_before.get(t, 0.0) for t, s in threads.items() if t != server.process.pid]
    result: dict[str, Any] = json.loads(output)
    result["n"] = len(result["ms"])
    result["errors"] = result["n"] - result["statuses"].get("200", 0)
    answered = max(1, result["n"])
    result["cpu_ms"] = spent / answered * 1e3
    result["http_ms"] = (spent - sum(sorted(others)[-slots:])) / answered * 1e3
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("image", type=Path)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--requests", type=int, default=0)
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--field", default="file")
    parser.add_argument("--accept", default="*/*")
    print(json.dumps(run(parser.parse_args())))
