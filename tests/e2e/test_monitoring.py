"""From traffic to a retraining run: real server, real Prometheus and Alertmanager (Debian's) on loopback.

Needs: apt-get install prometheus prometheus-alertmanager
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.conftest import ROOT, SMALL
from tests.infra.test_monitoring import panels
from tests.serving.test_drift import WINDOW, healthy, send, server, shifted
from tests.signed import NEWSCODES
from tests.statements import source_type, with_xmp

pytestmark = pytest.mark.system

PROMETHEUS = ROOT / "infra" / "prometheus"
ALERTMANAGER = ROOT / "infra" / "alertmanager" / "alertmanager.yml"
WAIT_S = 40.0

AIDETECT = [sys.executable, "-c", "from pipelines.cli import main; main()"]


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binary(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is missing: apt-get install prometheus prometheus-alertmanager"
    return found


@dataclass
class Watch:
    """The processes that watch one server."""

    prometheus: str
    alertmanager: str
    workspace: Path
    proof: Path

    def query(self, expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.prometheus}/api/v1/query", params={"query": expression}, timeout=30)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"]["result"])

    def firing(self) -> set[str]:
        return {row["metric"]["alertname"] for row in self.query('ALERTS{alertstate="firing"}')}

    def routed(self) -> dict[str, list[str]]:
        """Alerts that Alertmanager holds, with the receivers each goes to."""
        alerts = httpx.get(f"{self.alertmanager}/api/v2/alerts", timeout=30).json()
        return {a["labels"]["alertname"]: sorted(r["name"] for r in a["receivers"]) for a in alerts}

    def decisions(self) -> list[dict[str, Any]]:
        """What `aidetect retrain --json` printed, one document a decision."""
        text = self.proof.read_text() if self.proof.exists() else ""
        return [json.loads("{" + part) for part in text.split("\n{")[1:]] if text.endswith("}\n") else []

    def retrain(self, settings: dict[str, str]) -> list[str]:
        """The command that an alert leads to; its answer is appended to `proof`."""
        sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        verb = ["retrain", "--prometheus", self.prometheus, "--json", *sets]
        return ["sh", "-c", '{ echo; "$@"; } >>"$0"', str(self.proof), *AIDETECT, *verb]


def until(what: str, condition: Callable[[], bool], seconds: float = WAIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.25)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[[httpx.Client], Watch]]:
    """Starts Prometheus, Alertmanager and the alert receiver on the committed files, only ports and pace changed."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(client: httpx.Client) -> Watch:
        ports = {name: free_port() for name in ("prometheus", "alertmanager", "receiver")}
        found = Watch(
            f"http://127.0.0.1:{ports['prometheus']}",
            f"http://127.0.0.1:{ports['alertmanager']}",
            tmp_path / "workspace",
            tmp_path / "decisions.jsonl",
        )
        config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(PROMETHEUS / "rules" / "*.yml")]
        config["alerting"]["alertmanagers"] = [
            {"static_configs": [{"targets": [f"127.0.0.1:{ports['alertmanager']}"]}]}
        ]
        aidetect = next(job for job in config["scrape_configs"] if job["job_name"] == "aidetect")
        aidetect["static_configs"] = [{"targets": [client.base_url.netloc.decode()]}]
        config["scrape_configs"] = [aidetect]
        routing = yaml.safe_load(ALERTMANAGER.read_text())
        routing["route"] |= {"group_wait": "1s", "group_interval": "2s"}
        webhook = next(r for r in routing["receivers"] if r["name"] == "retrain")["webhook_configs"][0]
        webhook["url"] = f"http://127.0.0.1:{ports['receiver']}/alerts"
        token = tmp_path / "alert-token"
        token.write_text("of this test\n")
        webhook["http_config"]["authorization"]["credentials_file"] = str(token)
        for name, document in (("prometheus", config), ("alertmanager", routing)):
            (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(document))
        listen = f"--web.listen-address=127.0.0.1:{ports['prometheus']}"
        commands = [
            [
                binary("prometheus"),
                f"--config.file={tmp_path / 'prometheus.yml'}",
                listen,
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                "--log.level=error",
            ],
            [
                binary("prometheus-alertmanager"),
                f"--config.file={tmp_path / 'alertmanager.yml'}",
                f"--web.listen-address=127.0.0.1:{ports['alertmanager']}",
                "--cluster.listen-address=",
                f"--storage.path={tmp_path / 'alertmanager'}",
                "--log.level=error",
            ],
            [
                *(sys.executable, "-m", "pipelines.alert_receiver", "--port", str(ports["receiver"])),
                *("--token-file", str(token), "--"),
                *found.retrain(_quick(found.workspace)),
            ],
        ]
        processes.extend(subprocess.Popen(command, cwd=ROOT, env=_environment()) for command in commands)
        return found

    yield start
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(60)


def _quick(workspace: Path) -> dict[str, str]:
    gate = {"gate.min_accuracy": "0", "gate.min_f1": "0", "deploy.auto": "false"}
    return SMALL | {"paths.workspace": str(workspace)} | gate


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def test_from_shifted_traffic_to_one_retraining_run(
    toy_bundle: Path, inverted_bundle: Path, tmp_path: Path, watch: Callable[[httpx.Client], Watch]
) -> None:
    workspace = tmp_path / "workspace"
    runs = workspace / "runs" / "earlier"
    runs.mkdir(parents=True)
    (runs / "run.json").write_text(json.dumps({"status": "refused", "started_at": "2026-11-01T08:00:00+00:00"}))
    settings = {"SHADOW_MODEL_URI": inverted_bundle, "FEEDBACK_DIR": tmp_path / "feedback"}
    with server(
        toy_bundle, DRIFT_STATE_PATH=tmp_path / "drift.sqlite", PIPELINE_RUNS_DIR=runs.parent, **settings
    ) as client:
        watched = watch(client)
        until(
            "Prometheus scrapes the server", lambda: _answers(watched) and bool(watched.query("aidetect_model_loaded"))
        )

        stop = threading.Event()
        send(client, healthy(WINDOW, seed=1))
        _label(client)
        declared = with_xmp("JPEG", source_type(NEWSCODES + "trainedAlgorithmicMedia"))
        assert client.post("/predict", files={"file": declared}).status_code == 200
        until("a calm window is recorded", lambda: client.get("/drift").json()["windows_closed"] == 1)
        until("its gauge is scraped", lambda: any(float(r["value"][1]) for r in watched.query("aidetect_drift_score")))
        # the toy bundle says it was trained in January 2026: that alert stands for good after an hour, not before
        assert watched.firing() == set()
        background = threading.Thread(target=_trickle, args=(client, stop), daemon=True)
        background.start()
        try:
            _every_panel_shows_something(watched)
        finally:
            stop.set()
            background.join(60)

        # what the trickle left open is closed by healthy traffic, so that the next window is all shifted
        rest = client.get("/drift").json()["open_window"]
        send(client, healthy(WINDOW - rest, seed=7))
        assert client.get("/drift").json()["state"] == "ok"

        send(client, shifted(WINDOW, seed=100))
        assert client.get("/drift").json()["state"] == "drift"
        until("the warning fires", lambda: watched.firing() == {"DriftWarning"})
        until("the warning reaches its people", lambda: watched.routed().get("DriftWarning") == ["team"])
        assert watched.decisions() == []

        send(client, shifted(WINDOW, seed=300))
        assert client.get("/drift").json()["state"] == "alarm"
        until("the alarm fires", lambda: "DriftAlarm" in watched.firing())
        until("the alarm reaches both", lambda: watched.routed().get("DriftAlarm") == ["on-call", "retrain"])
        until("a pipeline run was started and ended", lambda: bool(watched.decisions()), seconds=240)

        (first,) = watched.decisions()
        assert first["decision"]["reason"] == "drift"
        assert "drift alarm on version" in first["decision"]["explanation"]
        record = json.loads((workspace / "runs" / first["run_id"] / "run.json").read_text())
        assert record["status"] == "registered"
        assert record["reason"].startswith("drift: drift alarm on version")
        until(
            "the server tells of the run that passed", lambda: _value(watched, "aidetect_gate_refusals_in_a_row") == 0
        )

        # the alarm still stands; asked again, it says why it does nothing
        command = watched.retrain(_quick(workspace))
        subprocess.run(command, cwd=ROOT, env=_environment(), check=True, timeout=60)
        again = watched.decisions()[-1]
        assert again["run_id"] == ""
        assert "cool-down" in again["decision"]["explanation"]
        assert len(list((workspace / "runs").iterdir())) == 2


def _answers(watched: Watch) -> bool:
    try:
        return httpx.get(f"{watched.prometheus}/-/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def _value(watched: Watch, expression: str) -> float:
    return float(watched.query(expression)[0]["value"][1])


def _label(client: httpx.Client) -> None:
    for image in (shifted(1, seed=0)[0], healthy(1, seed=0)[0]):
        said = client.post("/predict", files={"file": image}).json()
        answer = client.post("/feedback", json={"request_id": said["request_id"], "label": "ai_generated"})
        assert answer.status_code == 200


def _trickle(client: httpx.Client, stop: threading.Event) -> None:
    seed = 1000
    while not stop.wait(0.3):
        seed += 1
        client.post("/predict", files={"file": healthy(WINDOW, seed)[0]})
        client.post("/predict", files={"file": b"no image"})
        if client.get("/drift").json()["open_window"] > WINDOW - 5:
            return


def _every_panel_shows_something(watched: Watch) -> None:
    expressions = {
        (title, target["expr"].replace("$__rate_interval", "30s"))
        for title, panel in panels()
        for target in panel["targets"]
    }
    assert len(expressions) > 30
    empty = expressions

    def shown() -> bool:
        nonlocal empty
        empty = {(title, expression) for title, expression in empty if not watched.query(expression)}
        return not empty

    deadline = time.monotonic() + WAIT_S
    while not shown():
        assert time.monotonic() < deadline, f"panels without data: {sorted(empty)}"
        time.sleep(0.5)


@pytest.mark.parametrize(
    "command",
    [
        ["promtool", "check", "config", "--syntax-only", "infra/prometheus/prometheus.yml"],
        [
            "promtool",
            "check",
            "rules",
            "--lint=all",
            "--lint-fatal",
            *map(str, sorted((PROMETHEUS / "rules").glob("*.yml"))),
        ],
        ["promtool", "test", "rules", *map(str, sorted((PROMETHEUS / "tests").glob("*.test.yml")))],
        ["amtool", "check-config", "infra/alertmanager/alertmanager.yml"],
    ],
    ids=["config", "rules", "alerts fire and stay quiet", "routes"],
)
def test_the_monitoring_tools_accept_their_files(command: list[str]) -> None:
    done = subprocess.run([binary(command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_rule_that_were_wrong_would_fail(tmp_path: Path) -> None:
    """The alert tests are able to fail: with the drift alarm's limit moved they do."""
    for folder in ("rules", "tests"):
        shutil.copytree(PROMETHEUS / folder, tmp_path / folder)
    path = tmp_path / "rules" / "alerts.yml"
    path.write_text(path.read_text().replace("max(aidetect_drift_alert) >= 2", "max(aidetect_drift_alert) >= 3"))
    command = [binary("promtool"), "test", "rules", str(tmp_path / "tests" / "alerts.test.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "DriftAlarm" in done.stdout + done.stderr
