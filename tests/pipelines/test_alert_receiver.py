"""An alert wakes the decision to retrain: messages of Alertmanager and Cloud Monitoring, and what they start."""

import base64
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.alert_receiver import AlertReceiver
from pipelines.github import dispatch
from pipelines.retrain import Evidence, retrain
from pipelines.retrain_state import History
from pipelines.settings.operations import RetrainConfig
from serving.platform.errors import RetrainError

ALARM = Evidence(
    drift_state="alarm", model_version="3", champion_age_days=10.0, new_labels=20, diagnosis="scores moved"
)


@pytest.fixture
def config(tmp_path: Path) -> RetrainConfig:
    return RetrainConfig(state_path=str(tmp_path / "workspace" / "retrain.jsonl"))


@pytest.fixture
def woken() -> list[list[str]]:
    return []


@pytest.fixture
def receiver(woken: list[list[str]]) -> Iterator[AlertReceiver]:
    ended = threading.Event()

    def wake(names: list[str]) -> None:
        woken.append(names)
        ended.wait(60)

    with AlertReceiver(("127.0.0.1", 0), wake, token="s3cret") as found:
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        yield found
        ended.set()
        found.shutdown()


def message(**labels: str) -> dict[str, Any]:
    alert = {"status": "firing", "labels": {"alertname": "DriftAlarm", **labels}}
    return {"version": "4", "status": "firing", "alerts": [alert, {"status": "resolved", "labels": alert["labels"]}]}


HANG_S = 60.0


def until(holds: Callable[[], object]) -> None:
    """Wait for what has to come, however long a loaded machine takes."""
    deadline = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def post(receiver: AlertReceiver, body: Any, token: str = "s3cret", path: str = "/alerts") -> int:
    url = f"http://127.0.0.1:{receiver.server_address[1]}{path}"
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(url, content=content, headers={"Authorization": f"Bearer {token}"}, timeout=HANG_S).status_code


def test_an_alert_wakes_the_decision_once(receiver: AlertReceiver, woken: list[list[str]]) -> None:
    assert [post(receiver, message(action="retrain")) for _ in range(3)] == [202, 202, 202]
    until(lambda: woken)
    assert woken == [["DriftAlarm"]]


def test_other_messages_wake_nothing(receiver: AlertReceiver, woken: list[list[str]]) -> None:
    assert post(receiver, message(severity="page")) == 200
    assert post(receiver, message(action="retrain"), token="guess") == 401
    assert post(receiver, b"{not json") == 400
    assert post(receiver, {"alerts": "none"}) == 400
    assert post(receiver, message(action="retrain"), path="/") == 404
    assert woken == []


def pushed(state: str = "open", **labels: str) -> dict[str, Any]:
    """What Pub/Sub pushes of an incident of Cloud Monitoring."""
    incident = {"policy_name": "aidetect: drift-alarm", "state": state, "policy_user_labels": labels}
    data = base64.b64encode(json.dumps({"version": "1.2", "incident": incident}).encode()).decode()
    return {"message": {"data": data, "messageId": "1"}, "subscription": "projects/p/subscriptions/aidetect-retrain"}


def test_an_incident_of_cloud_monitoring_wakes_as_an_alert_does(
    receiver: AlertReceiver, woken: list[list[str]]
) -> None:
    assert post(receiver, pushed("closed", action="retrain")) == 200
    assert post(receiver, pushed(severity="page")) == 200
    assert post(receiver, {"message": {"data": "no base64"}, "subscription": "x"}) == 400
    assert woken == []
    assert post(receiver, pushed(action="retrain")) == 202
    until(lambda: woken)
    assert woken == [["aidetect: drift-alarm"]]


def test_behind_google_the_answer_is_the_decision() -> None:
    outcomes, inside, decided = iter([True, False]), threading.Event(), threading.Event()

    def wake(_: list[str]) -> bool:
        inside.set()
        assert decided.wait(HANG_S)
        return next(outcomes)

    with AlertReceiver(("127.0.0.1", 0), wake, wait=True) as found, ThreadPoolExecutor(1) as pool:
        threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
        first = pool.submit(post, found, pushed(action="retrain"))
        assert inside.wait(HANG_S)
        assert post(found, pushed(action="retrain")) == 429  # Pub/Sub comes again
        decided.set()
        assert first.result(HANG_S) == 200
        assert post(found, pushed(action="retrain")) == 500
        found.shutdown()


@pytest.fixture
def github() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Address of a stand-in for GitHub's API, and the dispatches it took."""
    taken: list[dict[str, Any]] = []

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = self.path == "/repos/o/shop/actions/workflows/model-training.yml/dispatches"
            status = 404 if not known else 204 if self.headers["Authorization"] == "Bearer good" else 403
            if status == 204:
                taken.append(body)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", taken
        server.shutdown()


def test_a_dispatch_carries_its_reason_and_happens_once(
    github: tuple[str, list[dict[str, Any]]], config: RetrainConfig
) -> None:
    api, taken = github

    def start(reason: str, explanation: str) -> Any:
        return dispatch("o/shop", f"{reason}: {explanation}", "good", api=api)

    outcomes = [retrain(config, ALARM, start) for _ in range(3)]
    assert taken == [{"ref": "main", "inputs": {"reason": "drift: drift alarm on version 3: scores moved"}}]
    assert [outcome.status for outcome in outcomes] == ["dispatched", "", ""]
    (kept,) = History(config.state_path).read()
    assert kept.run_id.startswith("o/shop@") and kept.status == "dispatched"


@pytest.mark.parametrize(
    ("repository", "token", "words"),
    [
        ("shop", "good", "write OWNER/NAME"),
        ("o/shop", "", "set GITHUB_TOKEN"),
        ("o/shop", "old", "HTTP 403: .*Actions: write"),
        ("o/other", "good", "HTTP 404: no such repository or workflow"),
    ],
)
def test_a_dispatch_that_cannot_be_made_says_what_to_do(
    github: tuple[str, list[dict[str, Any]]], config: RetrainConfig, repository: str, token: str, words: str
) -> None:
    with pytest.raises(RetrainError, match=words):
        retrain(config, ALARM, lambda *_: dispatch(repository, "drift", token, api=github[0]))
    assert History(config.state_path).read() == []  # may be tried again
    assert github[1] == []


def test_the_receiver_runs_its_command(tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    command = [sys.executable, "-c", f"open({str(proof)!r}, 'w').write('yes')"]
    refused = subprocess.run(
        [sys.executable, "-m", "pipelines.alert_receiver", "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert refused.returncode == 1
    assert "--token-file" in refused.stderr

    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "pipelines.alert_receiver", "--port", str(port), "--", *command])
    try:
        statuses: list[int] = []

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                statuses.append(
                    httpx.post(f"http://127.0.0.1:{port}/alerts", json=message(action="retrain")).status_code
                )
            return bool(statuses)

        until(answers)
        assert statuses == [202]
        until(lambda: proof.exists() and proof.read_text() == "yes")
    finally:
        process.terminate()
        process.wait(HANG_S)
