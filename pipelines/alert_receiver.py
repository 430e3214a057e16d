"""`python -m pipelines.alert_receiver`: Alertmanager's webhook to `aidetect retrain`.

An alert only wakes it; whether a run starts is decided from the evidence at hand, as always. Alertmanager repeats an
alert that stands; cool-down and deduplication make that one run.
"""

import argparse
import hmac
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

MAX_BODY_BYTES: Final = 1_000_000
RETRAIN_LABEL: Final = ("action", "retrain")
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class AlertReceiver(ThreadingHTTPServer):
    """Answers `POST /alerts`; runs `wake` on a thread of its own, one at a time, and drops what comes meanwhile."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], wake: Callable[[list[str]], None], token: str = "") -> None:
        """Bind.

        Args:
            address: host and port; port 0 takes a free one.
            wake: called with the names of the firing alerts that ask for retraining.
            token: bearer token that callers must show; empty: none.
        """
        super().__init__(address, _Handler)
        self._wake = wake
        self.token = token
        self._busy = threading.Lock()

    def alert(self, names: list[str]) -> bool:
        """Wake the decision unless it is being taken already."""
        if not self._busy.acquire(blocking=False):
            return False
        threading.Thread(target=self._run, args=(names,), name="retrain").start()
        return True

    def _run(self, names: list[str]) -> None:
        try:
            self._wake(names)
        finally:
            self._busy.release()


class _Handler(BaseHTTPRequestHandler):
    server: AlertReceiver
    timeout = 10

    def do_POST(self) -> None:
        if self.path != "/alerts":
            return self._answer(404, "POST /alerts is the only route")
        if not self._is_trusted():
            return self._answer(401, "wrong or missing bearer token")
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            return self._answer(411, "Content-Length is missing")
        if not 0 <= length <= MAX_BODY_BYTES:
            return self._answer(413, f"more than {MAX_BODY_BYTES} bytes")
        try:
            names = firing(json.loads(self.rfile.read(length)))
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._answer(400, "not an Alertmanager webhook message")
        if not names:
            return self._answer(200, "no firing alert asks for retraining")
        woken = self.server.alert(names)
        return self._answer(202, "deciding" if woken else "already deciding")

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/healthz" else 404, "alive" if self.path == "/healthz" else "not found")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's signature
        sys.stderr.write(f"alert-receiver: {self.address_string()} {format % args}\n")

    def _is_trusted(self) -> bool:
        token = self.server.token
        return not token or hmac.compare_digest(self.headers.get("Authorization", ""), f"Bearer {token}")

    def _answer(self, status: int, text: str) -> None:
        body = json.dumps({"detail": text}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def firing(message: dict[str, object]) -> list[str]:
    """Names of the firing alerts in a webhook message that ask for retraining."""
    alerts = message["alerts"]
    if not isinstance(alerts, list):
        raise TypeError("alerts is not a list")
    name, value = RETRAIN_LABEL
    found = [alert["labels"] for alert in alerts if alert["status"] == "firing"]
    return sorted({str(labels["alertname"]) for labels in found if labels.get(name) == value})


def main(arguments: list[str] | None = None) -> int:
    """Listen until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.alert_receiver", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9095)
    parser.add_argument("--token-file", type=Path, help="file with the bearer token that Alertmanager sends")
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, help="what to run; default: aidetect retrain (see its --help)"
    )
    options = parser.parse_args(arguments)
    command = [part for part in options.command if part != "--"] or ["aidetect", "retrain"]
    try:
        token = options.token_file.read_text().strip() if options.token_file else ""
    except OSError as error:
        sys.stderr.write(f"error: {options.token_file}: {error.strerror}\n")
        return 1
    if not token and options.host not in LOOPBACK:
        sys.stderr.write(f"error: anyone who reaches {options.host} could start runs; give --token-file\n")
        return 1

    def wake(names: list[str]) -> None:
        sys.stderr.write(f"alert-receiver: {', '.join(names)}: running {' '.join(command)}\n")
        done = subprocess.run(command, check=False)
        sys.stderr.write(f"alert-receiver: {command[0]} ended with {done.returncode}\n")

    try:
        receiver = AlertReceiver((options.host, options.port), wake, token)
    except OSError as error:
        sys.stderr.write(f"error: cannot listen on {options.host}:{options.port}: {error.strerror}; choose another\n")
        return 1
    with receiver:
        try:
            receiver.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
