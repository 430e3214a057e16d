"""Metrics and logs of a server of several processes."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx
from starlette.testclient import TestClient

from tests.bundles import jpeg
from tests.serving.processes import environment, serve
from tests.serving.scraped import Samples, parse, upload, value

Client = Callable[..., TestClient]


# --- several processes --------------------------------------------------------------------------------------


PATIENCE_S = 60.0
"""For an answer on a loaded machine."""


def test_two_workers_answer_for_each_other_and_a_dead_ones_gauges_go(toy_bundle: Path, tmp_path: Path) -> None:
    import psutil

    with serve(toy_bundle, tmp_path / "log", WORKERS="2", SLOTS="1") as server:
        url = server.url

        def read() -> Samples:
            # a connection of its own each time: either worker may answer
            with urllib.request.urlopen(f"{url}/metrics", timeout=PATIENCE_S) as answer:
                return parse(answer.read().decode())

        def predict() -> None:
            assert httpx.post(f"{url}/predict", files=upload(), timeout=PATIENCE_S).status_code == 200

        def pids() -> list[int]:
            found = []
            for child in psutil.Process(server.process.pid).children():
                # the one just killed is a zombie until its supervisor looks
                with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
                    if any("spawn_main" in part for part in child.cmdline()):
                        found.append(child.pid)
            return found

        def counting(workers: list[int]) -> bool:
            """Whether each of two workers has said something of its model, be it that there is none yet."""
            said = 0
            for pid in workers:
                folder = Path(psutil.Process(pid).environ()["PROMETHEUS_MULTIPROC_DIR"])
                said += any(b"aidetect_model_loaded" in f.read_bytes() for f in folder.glob(f"gauge_*_{pid}.db"))
            return said == 2

        for _ in range(20):
            predict()
        # the first worker that is ready has answered them all; the other one may not even have begun to count
        deadline = time.monotonic() + PATIENCE_S
        while not counting(pids()) or value(read(), "aidetect_model_loaded") != 1:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        for found in [read() for _ in range(6)]:
            assert value(found, "aidetect_prediction_probability_count") == 20
            assert value(found, "http_requests_total", method="POST", endpoint="/predict", status="200") == 20
            assert value(found, "aidetect_model_loaded") == 1
            assert sum(v for (name, _), v in found.items() if name == "aidetect_model_info") == 1

        before = pids()
        assert len(before) == 2
        folder = Path(psutil.Process(before[0]).environ()["PROMETHEUS_MULTIPROC_DIR"])
        psutil.Process(before[0]).send_signal(signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE_S
        # the supervisor looks now and then, buries it and starts another one
        while before[0] in pids() or len(pids()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        predict()
        assert value(read(), "aidetect_prediction_probability_count") == 21
        assert not list(folder.glob(f"gauge_live*_{before[0]}.db"))


SPANS_OF_A_PREDICTION = """
import sys
from pathlib import Path
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.testclient import TestClient

spans, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)

from serving.app import create_app
from serving.registry import resolve
from serving.served import Served
from serving.settings import Settings

bundle, photo = map(Path, sys.argv[1:])
app = create_app(Settings(model_uri="unused"), Served.load(resolve(str(bundle), bundle.parent)))
with TestClient(app) as client:
    assert client.post("/predict", files={"file": photo.read_bytes()}).status_code == 200
print([span.name for span in spans.get_finished_spans()])
"""


def test_the_framework_traces_no_request(toy_bundle: Path, tmp_path: Path) -> None:
    # any library may set up OpenTelemetry in the process; FastAPI would then open three spans for each prediction
    photo = tmp_path / "x.jpg"
    photo.write_bytes(jpeg(200))
    command = [sys.executable, "-c", SPANS_OF_A_PREDICTION, str(toy_bundle), str(photo)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


OLD_SERVER = """
import sys
from prometheus_client import Gauge
names = ["name", "version", "architecture", "input_px", "digest"]
info = Gauge("aidetect_model_info", "x", names, multiprocess_mode="livemax")
info.labels("m", "of-an-earlier-server", "x", "1", "d").set(1)
"""


def test_what_an_earlier_server_left_is_not_counted_again(toy_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    left = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)}
    subprocess.run([sys.executable, "-c", OLD_SERVER], env=left, check=True, timeout=60)
    (file,) = folder.glob("gauge_livemax_*.db")
    # the number of a process that lives, as it is after a restart of the container
    file.rename(folder / f"gauge_livemax_{os.getpid()}.db")
    with serve(toy_bundle, tmp_path / "log", PROMETHEUS_MULTIPROC_DIR=str(folder), SLOTS="1") as running:
        lines = httpx.get(f"{running.url}/metrics", timeout=60).text.splitlines()
        shown = [line for line in lines if line.startswith("aidetect_model_info")]
        assert len(shown) == 1
        assert "of-an-earlier-server" not in shown[0]
        assert running.terminate() == 0
