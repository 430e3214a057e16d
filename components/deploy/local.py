"""A version on this machine: a real server process from the same environment, booted from the registry."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Final

from components.artifacts.model_version import ModelVersion
from components.deploy.config import DeployConfig, inherited_environment
from components.deploy.rollout import Serving, Started
from components.deploy.smoke import HttpProber, Prober
from components.platform.signals import interrupts_held
from serving.platform.errors import SmokeError, StageError
from serving.platform.processes import tied, untie
from serving.platform.records import tail

_POLL_S: Final = 0.05
_LOG_LINES: Final = 5


class LocalRollout:
    """A server process of one version. There is no traffic to share: users follow the alias `champion`."""

    canary = False
    images = ("", "")

    def __init__(self, version: ModelVersion, config: DeployConfig, scratch: Path) -> None:
        self._version, self._config = version, config
        self._scratch = scratch
        # a server that stays needs a log that stays; beside the ledger it is found
        stays = config.keep_running and "://" not in config.ledger_path
        self._log_path = Path(config.ledger_path).with_name("server.log") if stays else scratch / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def begin(self) -> str:
        """Nothing to read: users follow the alias."""
        return ""

    def resume(self, begun: str, serving: ModelVersion | None) -> None:
        """Nothing to take up: a server ends with the process that tried it."""

    def start(self) -> Started:
        """Start the server and wait until its model is loaded and verified.

        Raises:
            StageError: the port is taken.
            SmokeError: the server ended, or was not ready in time; the message has its last words.
        """
        host = self._config.host
        port = _bindable_port(host, self._config.port)
        self._url = f"http://{host}:{port}"
        own = {} if self._config.keep_running else {"MODEL_CACHE_DIR": str(self._scratch / "model-cache")}
        environment = (
            inherited_environment()
            | own
            | {
                "MODEL_URI": self._version.uri,
                "MODEL_DIGEST": self._version.bundle_digest,
                "MLFLOW_TRACKING_URI": self._version.tracking_uri,
                "HOST": host,
                "PORT": str(port),
                # the smoke test is the only client of a server that ends after it
                "RATE_LIMIT_ENABLED": str(self._config.keep_running).lower(),
            }
        )
        with self._log_path.open("wb") as log, interrupts_held():
            self._process = subprocess.Popen(
                # ends with this process until it is let go: a killed promotion leaves no server
                tied("serving"),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                # its own session: an interrupt at the terminal reaches this stage, which then stops the server itself
                start_new_session=True,
            )
        prober = HttpProber(self._url, self._config.request_timeout_s)
        self._wait_ready(prober, self._process)
        return Started(prober, self._version.version)

    def shift(self, percent: int) -> Prober:
        """Nothing to share on one machine: who runs a promotion looks at `canary` first.

        Raises:
            StageError: always; a share that nobody gave must not pass for given.
        """
        raise StageError(
            f"a local server takes no {percent} % of the traffic; set deploy.target to cloud_run or vertex_endpoint"
        )

    def finish(self) -> Serving:
        """Stop the server, which must exit cleanly, or leave it running where the configuration says so.

        Raises:
            SmokeError: it ignored SIGTERM or exited with an error.
        """
        process = self._process
        if process is None:
            return Serving()
        if self._config.keep_running:
            return Serving(self._url, process.pid)
        code = self._stop(process)
        self._process = None
        if code != 0:
            raise SmokeError(f"the server exited {code} on SIGTERM instead of 0: {self._last_words()}")
        return Serving()

    def settle(self) -> None:
        """Let go of a server that is to stay; one that is not has ended."""
        if self._process is not None:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                untie(self._process)

    def restore(self) -> None:
        """Stop the server if it runs."""
        if self._process is not None:
            self._stop(self._process)
            self._process = None

    def _wait_ready(self, prober: HttpProber, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + self._config.ready_timeout_s
        while not prober.ready():
            if process.poll() is not None:
                raise SmokeError(
                    f"the server for {self._version.uri} exited {process.returncode} before it was ready: "
                    f"{self._last_words()}"
                )
            if time.monotonic() > deadline:
                raise SmokeError(
                    f"the server for {self._version.uri} was not ready within {self._config.ready_timeout_s:g} s: "
                    f"{self._last_words()}"
                )
            time.sleep(_POLL_S)

    def _stop(self, process: "subprocess.Popen[bytes]") -> int:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(self._config.stop_timeout_s)
            except subprocess.TimeoutExpired:
                # workers of a multi-process server share its session
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.stdin is not None:
            process.stdin.close()
        return process.returncode

    def _last_words(self) -> str:
        lines = tail(self._log_path).splitlines() if self._log_path.is_file() else []
        return " | ".join(line.strip() for line in lines[-_LOG_LINES:] if line.strip()) or "it said nothing"


def _bindable_port(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StageError(
                f"port {port} of {host} cannot be used ({error.strerror}); stop what listens there, "
                "or set deploy.port (0 picks a free one)"
            ) from error
        return int(probe.getsockname()[1])
