"""A light HTTP load generator in a process of its own; prints one JSON line.

`python -m tests.bench.serving_load PORT PATH IMAGE --clients 8 --seconds 5` keeps `clients` connections busy.
`--requests N` sends N requests instead. `--probe` also asks /healthz every 20 ms on a connection of its own.
"""

import argparse
import asyncio
import json
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


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """The bytes of an HTTP/1.1 request."""
    lines = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n".encode()
    if body:
        lines += b"Content-Type: multipart/form-data; boundary=" + BOUNDARY + b"\r\n"
    return lines + b"\r\n" + body


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> int:
    """Send one request, read its whole answer, return its status."""
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    if length:
        await reader.readexactly(length)
    return int(head[9:12])


async def client(
    port: int, message: bytes, left: list[int], until: float, times: list[float], codes: list[int]
) -> None:
    """Ask again and again until the time or the shared count is up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until and left[0] > 0:
        left[0] -= 1
        started = time.perf_counter()
        codes.append(await exchange(reader, writer, message))
        times.append(time.perf_counter() - started)
    writer.close()


async def probe(port: int, until: float, times: list[float]) -> None:
    """Ask /healthz every 20 ms."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        await exchange(reader, writer, request("GET", "/healthz"))
        times.append(time.perf_counter() - started)
        await asyncio.sleep(0.02)
    writer.close()


async def run(args: argparse.Namespace) -> dict[str, object]:
    """Run the load and return what was seen; times in milliseconds."""
    message = request("POST", args.path, multipart("file", args.image.read_bytes()))
    started = time.perf_counter()
    until = started + args.seconds
    times: list[float] = []
    health: list[float] = []
    codes: list[int] = []
    left = [args.requests or 10**9]
    jobs = [client(args.port, message, left, until, times, codes) for _ in range(args.clients)]
    if args.probe:
        jobs.append(probe(args.port, until, health))
    await asyncio.gather(*jobs)
    return {
        "wall_s": time.perf_counter() - started,
        "statuses": {str(code): codes.count(code) for code in sorted(set(codes))},
        "ms": [round(t * 1e3, 3) for t in times],
        "health_ms": [round(t * 1e3, 3) for t in health],
    }


def measure(server: Server, path: str, image: Path, *options: str) -> dict[str, Any]:
    """Load a server from another process; adds `n`, `cpu_ms` an answered request, and `errors` (all but 200)."""
    command = [sys.executable, "-m", "tests.bench.serving_load", str(server.port), path, str(image), *options]
    before = server.cpu_s()
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout
    spent = server.cpu_s() - before
    result: dict[str, Any] = json.loads(output)
    result["n"] = len(result["ms"])
    result["errors"] = result["n"] - result["statuses"].get("200", 0)
    result["cpu_ms"] = spent / max(1, result["n"]) * 1e3
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
    print(json.dumps(asyncio.run(run(parser.parse_args()))))
