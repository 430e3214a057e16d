"""A soak: `python -m tests.load.soak --minutes 10` keeps a server busy and watches its memory and its answers.

Good and bad requests of every kind go in a mix over a few connections. It fails (exit 1) if any answer is a 5xx, if an
answer is missing, or if memory goes on growing: the median of the last fifth of the run against that of the second
fifth. The clock starts after every kind of request was answered once by every client: torch is loaded by then.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.bench.serving_load import multipart, request
from tests.bundles import jpeg, make_bundle
from tests.serving.processes import Server, serve

MAX_GROWTH_MIB = 16.0


def mix() -> list[bytes]:
    """Requests in the proportion in which they are sent."""
    small, large = jpeg(200, (224, 224)), jpeg(90, (1600, 1200))
    good = [request("POST", "/predict", multipart("file", jpeg(level, (224, 224), seed=level))) for level in range(20)]
    bad = [
        request("POST", "/predict", multipart("file", data))
        for data in (b"", b"text", large[:2000], b"GIF89a" + small, jpeg(1, (1, 1)), small[:-20])
    ]
    other = [
        request("POST", "/predict", multipart("file", large)),
        request("POST", "/predict/batch", multipart("files", small)),
        request("POST", "/predict/explain", multipart("file", small)),
        request("POST", "/v1/predict/explain", multipart("file", large)),
        request("POST", "/predict", multipart("wrong", small)),
        request("GET", "/metrics"),
        request("GET", "/drift"),
        request("GET", "/health"),
        request("GET", f"/{os.urandom(4).hex()}"),
    ]
    return good + bad + other


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, message: bytes) -> int:
    """Send one request, read its whole answer, return its status."""
    writer.write(message)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    if length:
        await reader.readexactly(length)
    return int(head[9:12])


async def client(port: int, messages: list[bytes], offset: int, count: int, seen: Counter[int]) -> None:
    """Send `count` requests of the mix, from `offset` on, over one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for at in range(offset, offset + count):
        seen[await asyncio.wait_for(exchange(reader, writer, messages[at % len(messages)]), 60)] += 1
    writer.close()
    await writer.wait_closed()


async def keep_asking(port: int, messages: list[bytes], offset: int, until: float, seen: Counter[int]) -> None:
    """Send the mix round and round, a hundred requests a connection."""
    while time.monotonic() < until:
        await client(port, messages, offset, 100, seen)
        offset += 100


async def soak(server: Server, seconds: float, clients: int) -> tuple[Counter[int], list[float]]:
    """Answers by status, and the memory in MiB at 200 moments."""
    seen: Counter[int] = Counter()
    memory: list[float] = []
    messages = mix()
    await asyncio.gather(*(client(server.port, messages, 0, len(messages), seen) for _ in range(clients)))
    until = time.monotonic() + seconds
    jobs = [asyncio.create_task(keep_asking(server.port, messages, 7 * n, until, seen)) for n in range(clients)]
    while time.monotonic() < until:
        await asyncio.sleep(seconds / 200)
        memory.append(server.rss_mib())
        if sys.stderr.isatty():
            print(f"\r{sum(seen.values()):,} answers, {memory[-1]:.0f} MiB", end="", file=sys.stderr)
    await asyncio.gather(*jobs)
    return seen, memory


def main() -> int:
    """Run; 0 if nothing broke and memory stayed flat."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--bundle", type=Path, help="a model bundle; default: the tests' tiny one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = args.bundle or make_bundle(Path(folder) / "bundle")
        with serve(bundle, Path(folder) / "log", LOG_LEVEL="warning", EXPLAIN_WARMUP="true") as server:
            seen, memory = asyncio.run(soak(server, args.minutes * 60, args.clients))
    fifth = len(memory) // 5
    early, late = statistics.median(memory[fifth : 2 * fifth]), statistics.median(memory[-fifth:])
    failed = sum(n for status, n in seen.items() if status >= 500)
    print(f"{sum(seen.values()):,} answers: " + ", ".join(f"{s}: {n:,}" for s, n in sorted(seen.items())))
    print(f"memory: {early:.1f} MiB early, {late:.1f} MiB late, peak {max(memory):.1f} MiB")
    if failed:
        print(f"FAILED: {failed} answers were 5xx")
    if late - early > MAX_GROWTH_MIB:
        print(f"FAILED: memory grew by {late - early:.1f} MiB, more than {MAX_GROWTH_MIB:.0f}")
    return int(failed > 0 or late - early > MAX_GROWTH_MIB)


if __name__ == "__main__":
    sys.exit(main())
