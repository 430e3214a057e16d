"""`python -m pipelines.alert_receiver`: Alertmanager's webhook, or Pub/Sub's push of Cloud Monitoring's, to retraining.

An alert only wakes it; whether a run starts is decided from the evidence at hand, as always. Both repeat an alert;
cool-down and deduplication make that one run.
"""

import argparse
import base64
import hmac
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

MAX_BODY_BYTES: Final = 1_000_000
RETRAIN_LABEL: Final = ("action", "retrain")
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
ALIVE: Final = ("/healthz", "/livez")
"""The front of run.app answers /healthz itself."""
BUSY: Final = 429
FAILED: Final = 500


class AlertReceiver(ThreadingHTTPServer):
    """Answers `POST /alerts`; runs `wake` on a thread of its own, one at a time, and drops what comes meanwhile."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], wake: Callable[[list[str]], bool | None], token: str = "", wait: bool = False
    ) -> None:
        """Bind.

        Args:
            address: host and port; port 0 takes a free one.
            wake: called with the names of the firing alerts that ask for retraining; False: the decision failed.
            token: bearer token that callers must show; empty: none.
            wait: answer when the decision is taken, not before: Cloud Run gives no processor to what runs after an
                answer, and Pub/Sub asks again after a failure.
        """
        super().__init__(address, _Handler)
        self._wake = wake
        self.token = token
        self._wait = wait
        self._busy = threading.Lock()

    def alert(self, names: list[str]) -> tuple[int, str]:
        """Wake the decision unless it is being taken already; status and words of the answer."""
        if not self._busy.acquire(blocking=False):
            # who does not wait for a decision is not told to come again either
            return (BUSY, "already deciding; ask again") if self._wait else (202, "already deciding")
        if self._wait:
            return (200, "decided") if self._run(names) else (FAILED, "the decision failed; see the log")
        threading.Thread(target=self._run, args=(names,), name="retrain").start()
        return 202, "deciding"

    def _run(self, names: list[str]) -> bool:
        try:
            return self._wake(names) is not False
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
            names = firing(unwrapped(json.loads(self.rfile.read(length))))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return self._answer(400, "not a message of Alertmanager or Cloud Monitoring")
        if not names:
            return self._answer(200, "no firing alert asks for retraining")
        return self._answer(*self.server.alert(names))

    def do_GET(self) -> None:
        self._answer(200 if self.path in ALIVE else 404, "alive" if self.path in ALIVE else "not found")

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


def unwrapped(message: dict[str, Any]) -> dict[str, Any]:
    """A message as it stands, or what Pub/Sub's push brings in its envelope."""
    if "subscription" not in message:
        return message
    found: dict[str, Any] = json.loads(base64.b64decode(message["message"]["data"], validate=True))
    return found


def firing(message: dict[str, Any]) -> list[str]:
    """Names of the firing alerts that ask for retraining, in a message of Alertmanager or Cloud Monitoring."""
    if "incident" in message:
        incident, (name, value) = message["incident"], RETRAIN_LABEL
        asks = incident["state"] == "open" and (incident.get("policy_user_labels") or {}).get(name) == value
        return [str(incident["policy_name"])] if asks else []
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
        "--behind-google", action="store_true", help="Cloud Run has asked who calls; answer when the decision is taken"
    )
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
    if not token and options.host not in LOOPBACK and not options.behind_google:
        sys.stderr.write(f"error: anyone who reaches {options.host} could start runs; give --token-file\n")
        return 1

    def wake(names: list[str]) -> bool:
        sys.stderr.write(f"alert-receiver: {', '.join(names)}: running {' '.join(command)}\n")
        done = subprocess.run(command, check=False)
        sys.stderr.write(f"alert-receiver: {command[0]} ended with {done.returncode}\n")
        return done.returncode == 0

    try:
        receiver = AlertReceiver((options.host, options.port), wake, token, options.behind_google)
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
