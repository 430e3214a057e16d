"""`python -m serving`: serve a model over HTTP until told to stop."""

import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from serving.detector.collector import lasting
from serving.platform.errors import AidetectError, StartError, StateError, plain
from serving.platform.settings import pin_numerical_threads, read_settings_file
from serving.settings import Settings, share_metrics_between_processes

if TYPE_CHECKING:
    import uvicorn

    from serving.served import Served


WORKER_START_S: Final = 60
SHUTDOWN_RESERVE_S: Final = 3
"""Of SHUTDOWN_TIMEOUT_S, for what comes after the last request."""


def main() -> int:
    """Start the server; 0 after SIGTERM or SIGINT and an orderly end, 1 for what the operator must fix."""
    pin_numerical_threads()
    try:
        read_settings_file()
        with lasting():
            run = _prepare(_settings())
        return run()
    except StartError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _settings() -> Settings:
    try:
        settings = Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(map(str, first["loc"])).upper()
        raise StartError(f"{name}: {plain(first)}") from error
    if not settings.champion_uri:
        raise StartError("MODEL_URI is not set; give a bundle folder, gs://bucket/folder or models:/name@alias")
    return settings


def _prepare(settings: Settings) -> Callable[[], int]:
    """Load all that serves and bind the port; what comes back serves until told to stop."""
    # bound before anything is loaded: a port in use is known at once
    listener = _bind(settings.host, settings.listen_port)
    several = settings.workers > 1
    if several or settings.prometheus_multiproc_dir is not None:
        share_metrics_between_processes()
    # what loads a model is imported first: two threads inside one ring of modules may see half of it
    import serving.served  # noqa: F401 - for what it imports

    with ThreadPoolExecutor(1) as aside:
        # hashing and ONNX Runtime leave the interpreter to the rest of the imports
        loading = aside.submit(_load, settings)
        import uvicorn

        from serving.app import create_app
        from serving.http.connections import LingeringHttp
        from serving.http.security.policy import Policy
        from serving.telemetry import configure_logging

        served = loading.result()

    configure_logging(settings.log_level, settings.log_format)
    try:
        Policy.of(settings)
        # several processes make an application each
        app = "serving.app:create_worker" if several else create_app(settings, served)
    except (StateError, ValueError) as error:
        raise StartError(str(error)) from error
    config = uvicorn.Config(
        app,
        factory=several,
        workers=settings.workers,
        loop="uvloop",
        http=LingeringHttp,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        # what is still not answered then is given up, and the slots have a moment to end
        timeout_graceful_shutdown=max(1, settings.shutdown_timeout_s - SHUTDOWN_RESERVE_S),
        # a worker that imports answers nobody yet: within the usual five seconds a busy machine would start it for ever
        timeout_worker_healthcheck=WORKER_START_S,
    )
    # uvicorn re-raises the signal that stopped it; ours ends the process with 0, as an orderly stop should
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        listener.listen(config.backlog)
    except OSError as error:
        raise StartError(f"cannot listen: {error.strerror}; choose another PORT") from error
    return partial(_supervise if several else _run, config, listener)


def _run(config: "uvicorn.Config", listener: socket.socket) -> int:
    from uvicorn import Server

    server = Server(config)
    server.run(sockets=[listener])
    return 0 if server.started else 1


def _supervise(config: "uvicorn.Config", listener: socket.socket) -> int:
    from uvicorn.supervisors import Multiprocess

    supervisor = Multiprocess(config, sockets=[listener])
    supervisor.run()
    # uvicorn's workers finish what is in flight and then end by the SIGTERM they were sent
    orderly = (None, 0, -signal.SIGTERM)
    return max(0 if process.exitcode in orderly else 1 for process in supervisor.processes)


def _load(settings: Settings) -> "Served":
    from serving.registry import resolve
    from serving.served import Served

    try:
        found = resolve(
            settings.champion_uri, settings.model_cache_dir, settings.mlflow_tracking_uri, settings.model_digest
        )
        return Served.load(found, settings.model_version)
    except (AidetectError, OSError) as error:
        raise StartError(str(error)) from error


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror}; choose another PORT or HOST") from error
    listener.set_inheritable(True)
    return listener


if __name__ == "__main__":
    sys.exit(main())
