"""Drift through the front door: real server processes, real images, /drift and /metrics."""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from serving.detector.decision import DecisionRule
from serving.detector.statistics import InputQuality, read_reference
from serving.drift.monitor import DriftMonitor, DriftPolicy
from serving.drift.signals import SIGNALS
from tests.bundles import jpeg
from tests.serving.processes import serve

WINDOW = 60
RULE = DecisionRule(temperature=1.2, bias=0.05)
LEVELS = np.arange(20, 236, 4)


def healthy(n: int, seed: int) -> list[bytes]:
    """Pictures as the toy bundle's reference has them, in another order."""
    order = np.random.default_rng(seed).permutation(np.resize(LEVELS, n))
    return [jpeg(int(level), quality=80 + int(level) % 15, seed=seed + i) for i, level in enumerate(order)]


def shifted(n: int, seed: int) -> list[bytes]:
    """Bright pictures, recompressed."""
    return [jpeg(215, quality=40, seed=seed + i) for i in range(n)]


@contextmanager
def server(bundle: Path, **env: Any) -> Iterator[httpx.Client]:
    """A real server process; ended by SIGTERM, which must succeed."""
    variables = {"DRIFT_WINDOW": WINDOW, "SLOTS": 1, "DRIFT_MIN_N": 50, "LOG_LEVEL": "warning", **env}
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(bundle, Path(folder) / "log", **{name: str(value) for name, value in variables.items()}) as running,
        httpx.Client(base_url=running.url, timeout=60) as client,
    ):
        yield client
        assert running.terminate() == 0


def send(client: httpx.Client | TestClient, images: list[bytes]) -> None:
    for start in range(0, len(images), 10):
        files = [("files", ("photo.jpg", data, "image/jpeg")) for data in images[start : start + 10]]
        answer = client.post("/predict/batch", files=files)
        assert answer.status_code == 200, answer.text
        assert answer.json()["failed"] == 0


def gauges(client: httpx.Client) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("aidetect_drift")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def status(monitor: DriftMonitor) -> dict[str, Any]:
    report = monitor.report()
    return report.model_dump(mode="json") if report else {}


def eventually(read: Any, expected: Any, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while (found := read()) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def test_shifted_traffic_warns_after_one_window_and_alarms_after_two(toy_bundle: Path, tmp_path: Path) -> None:
    state = tmp_path / "state" / "drift.sqlite"
    with server(toy_bundle, DRIFT_STATE_PATH=state) as client:
        assert client.get("/drift").json()["state"] == "collecting"
        send(client, healthy(WINDOW, seed=1))
        calm = client.get("/drift").json()
        assert (calm["state"], calm["drift_detected"], calm["alerts"]) == ("ok", False, [])
        assert calm["window_size"] == WINDOW
        assert set(calm["signals"]) == set(SIGNALS)
        assert 0.3 < calm["mean_probability"] < 0.7
        assert 0.3 < calm["prediction_ratio"] < 0.7
        assert gauges(client)["aidetect_drift_alert"] == 0

        send(client, shifted(WINDOW, seed=100))
        warned = client.get("/drift").json()
        assert (warned["state"], warned["drift_detected"]) == ("drift", True)
        assert warned["prediction_ratio"] == 1.0
        assert {"jpeg_quality", "score_ks"} <= {alert["signal"] for alert in warned["alerts"]}
        assert "ingestion change" in warned["diagnosis"]
        assert warned["drift_score"] > 0.4
        now = gauges(client)
        assert now["aidetect_drift_alert"] == 1
        assert now['aidetect_drift_score{signal="jpeg_quality"}'] == warned["signals"]["jpeg_quality"]["score"]
        assert client.get("/health").json()["drift"]["state"] == "drift"

        send(client, shifted(WINDOW + 30, seed=300))
        assert client.get("/drift").json()["state"] == "alarm"
        assert gauges(client)["aidetect_drift_alert"] == 2

    # SIGTERM in mid-window: the 30 predictions of the open window and the alarm are still there
    with server(toy_bundle, DRIFT_STATE_PATH=state) as client:
        again = client.get("/v1/drift").json()
        assert (again["state"], again["open_window"], again["windows_closed"]) == ("alarm", 30, 3)
        send(client, healthy(WINDOW - 30, seed=5))
        assert client.get("/drift").json()["windows_closed"] == 4


def test_two_workers_report_one_truth(toy_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    with server(toy_bundle, WORKERS=2, PROMETHEUS_MULTIPROC_DIR=folder) as client:

        def load(part: list[bytes]) -> None:
            # a new connection for each, so that both workers accept some
            with httpx.Client(base_url=client.base_url, timeout=60, headers={"Connection": "close"}) as own:
                for data in part:
                    assert own.post("/predict", files={"file": data}).status_code == 200

        images = shifted(2 * WINDOW + 20, seed=1)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(load, [images[i::4] for i in range(4)]))

        def truth() -> set[tuple[str, int, int]]:
            answers = [client.get("/drift", headers={"Connection": "close"}).json() for _ in range(12)]
            return {(a["state"], a["windows_closed"], a["open_window"]) for a in answers}

        expected = {("alarm", 2, 20)}
        assert eventually(truth, expected) == expected
        assert eventually(lambda: gauges(client)["aidetect_drift_alert"], 2.0) == 2.0
        workers = {path.stem.rpartition("_")[2] for path in folder.glob("counter_*.db")}
    with sqlite3.connect(folder / "drift.sqlite") as connection:
        assert connection.execute("SELECT SUM(n) FROM windows").fetchone() == (2 * WINDOW,)
    assert len(workers) == 2, "one worker took every request: the test saw nothing"


def test_a_damaged_state_file_is_set_aside(toy_bundle: Path, tmp_path: Path) -> None:
    state = tmp_path / "drift.sqlite"
    state.write_bytes(b"not a database, and long enough to be taken for one" * 40)
    with server(toy_bundle, DRIFT_STATE_PATH=state) as client:
        assert client.get("/drift").json()["state"] == "collecting"
    (aside,) = tmp_path.glob("drift.sqlite.damaged-*")
    assert aside.read_bytes().startswith(b"not a database")


def test_a_state_path_that_cannot_be_written_is_one_clear_line(toy_bundle: Path, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    environment = {"MODEL_URI": str(toy_bundle), "PORT": "0", "DRIFT_STATE_PATH": str(occupied / "drift.sqlite")}
    done = subprocess.run(
        [sys.executable, "-m", "serving"], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "DRIFT_STATE_PATH" in line
    assert "writable folder" in line


@pytest.fixture
def monitor(toy_bundle: Path) -> Iterator[DriftMonitor]:
    found = DriftMonitor(DriftPolicy(window=100, min_n=50, max_age_s=0.2))
    found.serve("1", read_reference(toy_bundle), RULE)
    yield found
    found.close()


def feed(monitor: DriftMonitor, n: int, version: str = "1", logit: float = 2.0) -> None:
    quality = InputQuality(6.0, -7.9, 0.0, 90.0, "JPEG")
    for i in range(n):
        value = logit if i % 2 else -logit
        monitor.observe(RULE.decide(value), value, quality, version)


def test_a_quiet_shop_closes_its_window_by_age_once_it_has_enough(monitor: DriftMonitor) -> None:
    feed(monitor, 49)
    time.sleep(0.25)
    assert status(monitor)["windows_closed"] == 0
    feed(monitor, 1)
    assert status(monitor)["windows_closed"] == 1


def test_each_model_version_has_windows_of_its_own(monitor: DriftMonitor, toy_bundle: Path) -> None:
    feed(monitor, 100)
    assert status(monitor)["windows_closed"] == 1
    monitor.serve("2", read_reference(toy_bundle), RULE)
    feed(monitor, 30, version="2")
    fresh = status(monitor)
    assert (fresh["model_version"], fresh["windows_closed"], fresh["window_size"]) == ("2", 0, 30)
    monitor.serve("1", read_reference(toy_bundle), RULE)
    assert status(monitor)["windows_closed"] == 1


def test_one_observation_costs_the_same_in_a_long_window() -> None:
    quality, verdict = InputQuality(6.0, -7.9, 0.0, 90.0, "JPEG"), RULE.decide(1.0)

    def cost_s(window: int) -> float:
        """CPU time of one observation beside `window` others, the best of ten: no processor decides this test."""
        monitor = DriftMonitor(DriftPolicy(window=100_000))
        costs = []
        for _ in range(window):
            monitor.observe(verdict, 1.0, quality, "1")
        for _ in range(10):
            started = time.thread_time()
            for _ in range(500):
                monitor.observe(verdict, 1.0, quality, "1")
            costs.append((time.thread_time() - started) / 500)
        monitor.close()
        return min(costs)

    first, last = cost_s(0), cost_s(30_000)
    print(f"\nobserve(): {first * 1e6:.2f} us in a new window, {last * 1e6:.2f} us in a long one")
    assert last < 3 * first


def test_looking_for_a_full_window_costs_nothing_like_a_report(toy_bundle: Path) -> None:
    monitor = DriftMonitor(DriftPolicy(window=2000))
    monitor.serve("1", read_reference(toy_bundle), RULE)
    feed(monitor, 1999)
    monitor.refresh()

    def fastest(work: Callable[[], object]) -> float:
        costs = []
        for _ in range(10):
            started = time.thread_time()
            work()
            costs.append(time.thread_time() - started)
        return min(costs)

    look, report = fastest(monitor.refresh), fastest(monitor.report)
    monitor.close()
    print(f"\nrefresh(): {look * 1e3:.2f} ms, report(): {report * 1e3:.2f} ms")
    assert look < report / 5


def test_listeners_hear_of_changes_only(toy_bundle: Path, tmp_path: Path) -> None:
    policy, path = DriftPolicy(window=100), tmp_path / "drift.sqlite"
    heard: list[tuple[str, str, int]] = []
    first = DriftMonitor(policy, path, lambda s: heard.append((s.version, s.state, len(s.windows))))
    second = DriftMonitor(policy, path)
    for monitor in (first, second):
        monitor.serve("1", read_reference(toy_bundle), RULE)
    assert heard == [("1", "collecting", 0)]
    feed(first, 60)
    first.refresh()
    assert heard == [("1", "collecting", 0)]
    # the other worker closes the window
    feed(second, 40)
    second.refresh()
    first.refresh()
    assert [windows for _, _, windows in heard] == [0, 1]
    assert first.summary() == second.summary()
    first.serve("2", read_reference(toy_bundle), RULE)
    assert heard[2:] == [("2", "collecting", 0)]
    first.close()
    second.close()


def test_the_state_file_stays_small(toy_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "drift.sqlite"
    monitor = DriftMonitor(DriftPolicy(window=100), path)
    monitor.serve("1", read_reference(toy_bundle), RULE)
    for _ in range(30):
        feed(monitor, 100)
        monitor.refresh()
    document = status(monitor)
    monitor.close()
    with sqlite3.connect(path) as connection:
        (kept,) = connection.execute("SELECT COUNT(*) FROM observations").fetchone()
    assert kept <= 200
    assert document["windows_closed"] == 30
    assert json.dumps(document)
