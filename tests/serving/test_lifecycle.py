"""The server as a process: how it starts, swaps models, bears overload and ends."""

import asyncio
import io
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.bundles import jpeg, make_bundle
from tests.serving.processes import HANG_S, Server, serve

BRIGHT = jpeg(205, (64, 64))
PATIENT = {"REQUEST_TIMEOUT_S": "100", "DECODE_TIMEOUT_S": "60", "SHUTDOWN_TIMEOUT_S": "110"}
"""To decode, and to load torch, takes many times as long where the machine is shared."""


@dataclass
class Traffic:
    """What clients got back."""

    answers: list[httpx.Response] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def add(self, other: "Traffic") -> None:
        self.answers += other.answers
        self.lost += other.lost
        self.seconds += other.seconds

    @property
    def statuses(self) -> Counter[int]:
        return Counter(answer.status_code for answer in self.answers)


async def _client(server: Server, data: bytes, stop: asyncio.Event, traffic: Traffic) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=HANG_S) as client:
        while not stop.is_set():
            started = time.perf_counter()
            try:
                answer = await client.post("/predict", files={"file": ("x.jpg", data)})
            except httpx.ConnectError:
                # the listener is gone: this request was never accepted
                return
            except httpx.TransportError as error:
                traffic.lost.append(repr(error))
                return
            traffic.answers.append(answer)
            traffic.seconds.append(time.perf_counter() - started)
            if answer.status_code == 503:
                # four times less patient than Retry-After asks
                await asyncio.sleep(0.25)


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what has to come, however long a loaded machine takes."""
    deadline = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def drive(
    server: Server, data: bytes, clients: int, during: Callable[[Traffic], Awaitable[None]] | float
) -> Traffic:
    """Closed-loop clients for so many seconds, or until something has happened, which sees what they got back."""
    traffic = Traffic()
    stop = asyncio.Event()
    tasks = [asyncio.create_task(_client(server, data, stop, traffic)) for _ in range(clients)]
    if isinstance(during, float):
        await asyncio.sleep(during)
    else:
        await during(traffic)
    stop.set()
    await asyncio.gather(*tasks)
    return traffic


def test_term_under_load_answers_everything_accepted_and_exits_0(toy_bundle: Path, tmp_path: Path) -> None:
    picture = jpeg(205, (1600, 1200))
    with serve(toy_bundle, tmp_path / "log", SLOTS="1", STARTED="yes") as server:

        async def end(traffic: Traffic) -> None:
            await until(lambda: traffic.statuses[200] > 16)
            server.process.terminate()
            await asyncio.to_thread(server.process.wait, HANG_S)

        traffic = asyncio.run(drive(server, picture, 8, end))
        assert server.process.returncode == 0
        assert traffic.lost == []
        assert set(traffic.statuses) <= {200, 503}
        assert "Traceback" not in server.log


def test_a_slow_request_is_finished_after_term(toy_bundle: Path, tmp_path: Path) -> None:
    picture = jpeg(205, (4000, 3000))
    with serve(toy_bundle, tmp_path / "log", SLOTS="1", **PATIENT) as server:

        async def scene() -> httpx.Response:
            async with httpx.AsyncClient(timeout=HANG_S) as client:
                request = asyncio.create_task(client.post(f"{server.url}/predict/explain", files={"file": picture}))
                await asyncio.sleep(0.3)
                # connections are taken in turn: once this one is answered, the one before has been
                await client.get(f"{server.url}/healthz")
                assert not request.done()
                server.process.terminate()
                return await request

        # the first explanation loads torch, so the signal surely comes in the middle
        answer = asyncio.run(scene())
        assert answer.status_code == 200
        assert answer.json()["explained_class"] == "ai_generated"
        assert server.process.wait(HANG_S) == 0


def test_a_new_champion_takes_over_without_a_failed_request(
    toy_bundle: Path, inverted_bundle: Path, tmp_path: Path
) -> None:
    current = tmp_path / "current"
    current.symlink_to(toy_bundle)
    with serve(current, tmp_path / "log", MODEL_REFRESH_S="0.1", SLOTS="2") as server:
        before = httpx.get(f"{server.url}/model").json()

        async def swap(traffic: Traffic) -> None:
            await until(lambda: len(traffic.answers) >= 40)
            successor = tmp_path / "next"
            successor.symlink_to(inverted_bundle)
            successor.rename(current)
            await until(lambda: traffic.answers[-1].json()["prediction"] == "real")
            seen = len(traffic.answers)
            await until(lambda: len(traffic.answers) >= seen + 40)

        traffic = asyncio.run(drive(server, BRIGHT, 4, swap))
        after = httpx.get(f"{server.url}/model").json()
        metrics = httpx.get(f"{server.url}/metrics").text
    assert traffic.lost == []
    assert set(traffic.statuses) == {200}
    assert before["digest"] != after["digest"]
    said = {(a.json()["model_version"], a.json()["prediction"]) for a in traffic.answers}
    assert said == {(before["version"], "ai_generated"), (after["version"], "real")}
    info = [line for line in metrics.splitlines() if line.startswith("aidetect_model_info{")]
    assert [line.rpartition(" ")[2] for line in info if after["version"] in line] == ["1.0"]
    assert not [line for line in info if before["version"] in line and line.endswith(" 1.0")]


def test_a_broken_successor_leaves_the_champion(toy_bundle: Path, tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.symlink_to(toy_bundle)
    broken = shutil.copytree(toy_bundle, tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"not a model")
    with serve(current, tmp_path / "log", MODEL_REFRESH_S="0.1") as server:
        successor = tmp_path / "next"
        successor.symlink_to(make_bundle(tmp_path / "other", seed=5))
        shutil.copy(broken / "model.onnx", tmp_path / "other" / "model.onnx")
        successor.rename(current)
        deadline = time.monotonic() + HANG_S
        while "model refresh failed" not in server.log and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "model.onnx" in server.log
        assert httpx.post(f"{server.url}/predict", files={"file": BRIGHT}).json()["prediction"] == "ai_generated"


def _overload(server: Server, picture: bytes, turns: int = 3) -> tuple[Traffic, Traffic]:
    """Traffic at the capacity (five clients fill the slot and the queue) and at four times of it, by turns, so that a
    neighbour on the machine disturbs both."""
    full, over = Traffic(), Traffic()
    for _ in range(turns):
        full.add(asyncio.run(drive(server, picture, 5, 1.0)))
        over.add(asyncio.run(drive(server, picture, 20, 1.0)))
    return full, over


def test_overload_is_refused_and_nothing_queues_without_bound(toy_bundle: Path, tmp_path: Path) -> None:
    with serve(toy_bundle, tmp_path / "log", SLOTS="1", QUEUE_SIZE="4", **PATIENT) as server:
        full, over = _overload(server, _heavy_to_decode(), turns=1)
        depth = httpx.get(f"{server.url}/health").json()["queue"]
    assert full.lost == over.lost == []
    assert set(full.statuses) == {200}
    assert set(over.statuses) == {200, 503}
    refused = [a for a in over.answers if a.status_code == 503]
    assert all(int(a.headers["retry-after"]) >= 1 and a.json()["reason"] == "overloaded" for a in refused)
    assert depth["size"] == 4


def test_the_metrics_tell_how_many_jobs_wait(toy_bundle: Path, tmp_path: Path) -> None:
    async def depth(client: httpx.AsyncClient) -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        return float(next(line for line in lines if line.startswith("aidetect_queue_depth ")).rpartition(" ")[2])

    async def watch(server: Server) -> tuple[float, float]:
        deepest = 0.0

        async def look(_: Traffic) -> None:
            nonlocal deepest
            looks, deadline = 0, time.monotonic() + HANG_S
            while looks < 20 or not deepest:
                assert time.monotonic() < deadline
                deepest = max(deepest, await depth(client))
                looks += 1
                await asyncio.sleep(0.02)

        async with httpx.AsyncClient(base_url=server.url, timeout=HANG_S) as client:
            await drive(server, _heavy_to_decode(), 5, look)
            return deepest, await depth(client)

    with serve(toy_bundle, tmp_path / "log", SLOTS="1", QUEUE_SIZE="4", **PATIENT) as server:
        deepest, after = asyncio.run(watch(server))
    # five clients at one slot: four wait
    assert 1 <= deepest <= 4
    assert after == 0


@pytest.mark.system
@pytest.mark.alone  # a latency
def test_under_overload_what_is_accepted_stays_quick(toy_bundle: Path, tmp_path: Path) -> None:
    def p95(traffic: Traffic, status: int) -> float:
        found = sorted(s for s, a in zip(traffic.seconds, traffic.answers, strict=True) if a.status_code == status)
        return found[int(0.95 * (len(found) - 1))]

    ratios = []
    with serve(toy_bundle, tmp_path / "log", SLOTS="1", QUEUE_SIZE="4", **PATIENT) as server:
        for _ in range(3):
            full, over = _overload(server, _heavy_to_decode())
            ratios.append(p95(over, 200) / p95(full, 200))
            print(
                f"p95 at capacity {p95(full, 200):.3f} s, accepted at 4x {p95(over, 200):.3f} s, refused at 4x "
                f"{p95(over, 503):.3f} s; offered {len(over.answers) / max(1, full.statuses[200]):.1f}x"
            )
    # the best of three: the machine may be shared, the promise is the server's
    assert min(ratios) <= 2.0


def _heavy_to_decode() -> bytes:
    """Twelve megapixels in a few kilobytes: the load is the server's, not the sending client's."""
    buffer = io.BytesIO()
    Image.new("RGB", (4000, 3000), (205, 205, 205)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_job_that_waits_too_long_is_refused(toy_bundle: Path, tmp_path: Path) -> None:
    picture = _heavy_to_decode()
    with serve(toy_bundle, tmp_path / "log", SLOTS="1", QUEUE_SIZE="8", REQUEST_TIMEOUT_S="0.05") as server:
        traffic = asyncio.run(drive(server, picture, 6, 1.0))
        late = [a for a in traffic.answers if a.status_code == 503]
        assert {a.json()["reason"] for a in late} == {"deadline_exceeded"}
        assert all(a.headers["retry-after"] for a in late)
        # what timed out gives its place back once its thread is through
        deadline = time.monotonic() + HANG_S
        while httpx.post(f"{server.url}/predict", files={"file": BRIGHT}).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_several_processes_answer_as_one(toy_bundle: Path, tmp_path: Path) -> None:
    with serve(toy_bundle, tmp_path / "log", WORKERS="2", TMPDIR=str(tmp_path)) as server:
        traffic = asyncio.run(drive(server, BRIGHT, 4, 1.5))
        metrics = _loaded_everywhere(server)
        assert set(traffic.statuses) == {200}
        counted = sum(
            float(line.rpartition(" ")[2])
            for line in metrics.splitlines()
            if line.startswith("aidetect_predictions_total{")
        )
        assert counted == len(traffic.answers)
        pids = [int(line) for line in _children(server.process.pid)]
        assert len(pids) >= 2
        assert server.terminate() == 0
        deadline = time.monotonic() + HANG_S
        while [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _loaded_everywhere(server: Server) -> str:
    """The metrics as soon as every process has the model: the first that has answers meanwhile."""
    deadline = time.monotonic() + HANG_S
    while "\naidetect_model_loaded 1.0" not in (metrics := httpx.get(f"{server.url}/metrics").text):
        assert time.monotonic() < deadline, metrics
        time.sleep(0.1)
    return metrics


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
