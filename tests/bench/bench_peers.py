"""Our server beside those that one would write instead: the same network, photographs, clients and two cores.

`python -m tests.bench.bench_peers [--quick]` prints the table as Markdown and writes `peers.md` and `peers.json` to
`workspace/bench/`. Each peer runs in an environment of its own under `build/bench/`, made by uv from the pinned
`tests/bench/peers/NAME.txt` (the first time that takes a network and a minute). All servers stand at once and take
turns, so that a noisy machine is noisy for all of them alike. Processor time and memory are those of all processes of
a server; the clients run elsewhere and are not counted.

What is equal: weights, photographs, two cores, one worker process that scores (or two, where a framework's way to use
two cores is processes). What is not: ours also verifies the bundle, reads provenance and domain, watches drift, limits
bodies and rates (off here), and answers with the decision and its reasons; the peers answer a probability.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from serving.served import SETTLE_AFTER_S
from tests.bench.environments import python_of
from tests.bench.serving_inputs import efficientnet_bundle, photographs, plain_graph
from tests.processor import instruction_sets
from tests.serving.processes import environment, free_port

OUT = Path("workspace/bench")
PEERS = Path(__file__).parent / "peers"
CLIENTS = (1, 8, 32)
CORES = 2
BATCH = 8
SAME = 1e-4
"""Largest difference of probability between two servers on a photograph that none of them has to shrink."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to serve the network."""

    name: str
    environment: str
    """Of `peers/NAME.txt`; empty: our own."""
    command: tuple[str, ...]
    batches: bool = False
    form_field: str = "file"
    settings: dict[str, str] = field(default_factory=dict)


BENTO = ("-m", "bentoml", "serve", "--host", "127.0.0.1", "--port", "{port}")
KINDS = (
    Kind("ours", "", ("-m", "serving"), settings={"SLOTS": str(CORES), "QUEUE_SIZE": "64"}),
    Kind("FastAPI + ONNX Runtime, as in tutorials", "tutorial", ("tutorial.py",), settings={"THREADED": "no"}),
    Kind("the same with threads bounded", "tutorial", ("tutorial.py",), settings={"THREADED": "yes"}),
    Kind("LitServe, 2 workers", "litserve", ("litserve_app.py",), False, "request", {"BATCH": "1"}),
    Kind("LitServe, batches", "litserve", ("litserve_app.py",), True, "request", {"BATCH": str(BATCH)}),
    Kind("BentoML", "bentoml", (*BENTO, "bentoml_app:Plain"), settings={"BATCH": "1"}),
    Kind("BentoML, batches", "bentoml", (*BENTO, "bentoml_app:Batching"), batches=True, settings={"BATCH": str(BATCH)}),
)


class Running:
    """A server with all its processes."""

    def __init__(self, kind: Kind, process: subprocess.Popen[bytes], port: int) -> None:
        self.kind, self.port = kind, port
        self.start_s = self.start_cpu_s = 0.0
        self.process = process
        self._spent: dict[int, float] = {}

    def family(self) -> list[psutil.Process]:
        """The process and all that it started."""
        with suppress(psutil.NoSuchProcess):
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        return []

    def cpu_s(self) -> float:
        """Processor time of the family, of members that have ended too as far as they were seen."""
        for member in self.family():
            with suppress(psutil.NoSuchProcess):
                self._spent[member.pid] = time.clock_gettime(~member.pid << 3 | 2)
        return sum(self._spent.values())

    def memory_mib(self) -> float:
        """What the machine would have more without it: pages that processes share count once."""
        total = 0
        for member in self.family():
            with suppress(psutil.NoSuchProcess):
                total += member.memory_full_info().pss
        return total / 2**20

    def ask(self, photo: bytes) -> float:
        """The probability of one photograph."""
        files = {self.kind.form_field: ("x.jpg", photo, "image/jpeg")}
        answer = httpx.post(f"http://127.0.0.1:{self.port}/predict", files=files)
        return float(answer.raise_for_status().json()["probability"])


@contextmanager
def running(kind: Kind, bundle: Path, plain: Path, photo: bytes) -> Iterator[Running]:
    """Start a server, wait for its first answer, and end it with all that it started."""
    port = free_port()
    python = python_of(kind.environment) if kind.environment else Path(sys.executable)
    model = (plain if kind.batches else bundle / "model.onnx").resolve()
    settings = environment(
        HOST="127.0.0.1", PORT=str(port), MODEL_URI=str(bundle.resolve()), MODEL=str(model), DO_NOT_TRACK="true",
        BENTOML_DO_NOT_TRACK="true", **kind.settings,
    )  # fmt: skip
    command = [str(python), *(part.format(port=port) for part in kind.command)]
    log = (OUT / "peers.log").open("a")
    started = time.perf_counter()
    folder = PEERS if kind.environment else None
    process = subprocess.Popen(command, cwd=folder, env=settings, stdout=log, stderr=log, start_new_session=True)
    cores = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(process.pid, cores)
    server = Running(kind, process, port)
    try:
        _wait(server, photo)
        server.start_s, server.start_cpu_s = time.perf_counter() - started, server.cpu_s()
        yield server
    finally:
        family = server.family()
        process.terminate()
        _, left = psutil.wait_procs(family, timeout=15)
        for member in left:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        log.close()


def _wait(server: Running, photo: bytes) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise AssertionError(f"{server.kind.name}: ended with {server.process.returncode}; see {OUT / 'peers.log'}")
        with suppress(httpx.HTTPError):
            server.ask(photo)
            return
        time.sleep(0.02)
    raise AssertionError(f"{server.kind.name}: no answer within 90 s; see {OUT / 'peers.log'}")


def _load(server: Running, image: Path, *options: str) -> dict[str, Any]:
    to = (str(server.port), "/predict", str(image), "--field", server.kind.form_field)
    command = [sys.executable, "-m", "tests.bench.serving_load", *to, *options]
    before = server.cpu_s()
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    found: dict[str, Any] = json.loads(done.stdout)
    answered = found["statuses"].get("200", 0)
    found["cpu_ms"] = (server.cpu_s() - before) / max(1, answered) * 1e3
    found["per_s"] = answered / found["wall_s"]
    found["errors"] = len(found["ms"]) - answered
    return found


def measure(servers: list[Running], image: Path, options: tuple[str, ...], rounds: int) -> dict[str, dict[str, float]]:
    """Each server in turn, so many rounds; the medians."""
    found: dict[str, list[dict[str, Any]]] = {server.kind.name: [] for server in servers}
    for _ in range(rounds):
        for server in servers:
            found[server.kind.name].append(_load(server, image, *options))
    return {name: _medians(results) for name, results in found.items()}


def _medians(results: list[dict[str, Any]]) -> dict[str, float]:
    times = [ms for result in results for ms in result["ms"]]
    p50, p99 = np.percentile(times, [50, 99]).tolist()
    figures = {key: statistics.median(result[key] for result in results) for key in ("cpu_ms", "per_s")}
    return {**figures, "p50": p50, "p99": p99, "errors": float(sum(result["errors"] for result in results))}


def main() -> None:
    """Measure, print, write; exit 1 if the servers differ in what they answer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: shows that it works")
    quick = parser.parse_args().quick
    OUT.mkdir(parents=True, exist_ok=True)
    images = photographs(OUT)
    bundle = efficientnet_bundle(OUT / "efficientnet_b0", images["1024"])
    plain = plain_graph(bundle, OUT / "plain.onnx")
    photo = images["224"].read_bytes()
    with ExitStack() as stack:
        servers = [stack.enter_context(running(kind, bundle, plain, photo)) for kind in KINDS]
        time.sleep(SETTLE_AFTER_S + 1.0)
        said = {server.kind.name: server.ask(photo) for server in servers}
        for server in servers:
            _load(server, images["224"], "--requests", "20", "--clients", "4")
        rounds = 1 if quick else 6
        sizes = {
            name: measure(servers, images[name], ("--requests", "20" if quick else "40"), rounds)
            for name in ("224", "1024")
        }
        seconds = "2" if quick else "4"
        load = {
            str(n): measure(servers, images["224"], ("--clients", str(n), "--seconds", seconds), rounds)
            for n in CLIENTS
        }
        memory = {server.kind.name: server.memory_mib() for server in servers}
        start = {server.kind.name: (server.start_s, server.start_cpu_s) for server in servers}
    machine = {
        "date": datetime.now(UTC).date().isoformat(),
        "instructions": ", ".join(instruction_sets()),
        "quick": quick,
    }
    result = {"machine": machine, "sizes": sizes, "load": load, "memory_mib": memory, "start": start, "said": said}
    (OUT / "peers.json").write_text(json.dumps(result, indent=1))
    (OUT / "peers.md").write_text(table(result))
    print(table(result))
    if max(said.values()) - min(said.values()) > SAME:
        sys.exit(f"probabilities {said}: these are not the same network, the figures above do not count")


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    machine, sizes, load = result["machine"], result["sizes"], result["load"]
    how = "one short round (`--quick`)" if machine["quick"] else "medians of six rounds"
    lines = [
        f"{machine['date']}, two cores, {machine['instructions']}, EfficientNet-B0 at 224 px, {how}.",
        "",
        "| server | CPU ms a 224 px photo | CPU ms, 1024 px | CPU ms, 8 clients | photos/s at 1, 8, 32 clients "
        "| p50 / p99 ms at 1 | at 8 | at 32 | not answered | memory MiB | start s (CPU s) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in result["memory_mib"]:
        rates = ", ".join(f"{load[str(n)][name]['per_s']:.0f}" for n in CLIENTS)
        times = " | ".join(f"{load[str(n)][name]['p50']:.0f} / {load[str(n)][name]['p99']:.0f}" for n in CLIENTS)
        seconds, cpu = result["start"][name]
        refused = sum(part[name]["errors"] for part in (*sizes.values(), *load.values()))
        lines.append(
            f"| {name} | {sizes['224'][name]['cpu_ms']:.1f} | {sizes['1024'][name]['cpu_ms']:.1f} "
            f"| {load['8'][name]['cpu_ms']:.1f} | {rates} | {times} | {refused:.0f} | {result['memory_mib'][name]:.0f} "
            f"| {seconds:.1f} ({cpu:.1f}) |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
