"""Real servers of bundles on loopback, shared by the tests of a session: starting one costs seconds."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class BundleServers:
    """`python -m serving` processes, one for each bundle folder and version that was asked for."""

    def __init__(self) -> None:
        self._running: dict[tuple[Path, str], tuple[str, subprocess.Popen[bytes]]] = {}

    def url(self, bundle: Path, version: str) -> str:
        """Address of a server of `bundle` that says it is `version`."""
        key = (bundle, version)
        if key not in self._running:
            port = free_port()
            environment = {
                **os.environ,
                "MODEL_URI": str(bundle),
                "MODEL_VERSION": version,
                "HOST": "127.0.0.1",
                "PORT": str(port),
                "RATE_LIMIT_ENABLED": "false",
            }
            process = subprocess.Popen(
                [sys.executable, "-m", "serving"],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._running[key] = (f"http://127.0.0.1:{port}", process)
            self._wait(*self._running[key])
        return self._running[key][0]

    def close(self) -> None:
        """Stop them all."""
        for _, process in self._running.values():
            process.send_signal(signal.SIGTERM)
        for _, process in self._running.values():
            assert process.wait(120) == 0

    @staticmethod
    def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if httpx.get(f"{url}/readyz", trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"the server at {url} did not become ready")
