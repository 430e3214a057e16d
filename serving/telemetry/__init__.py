"""What the server says of itself: Prometheus metrics, JSON log lines, request ids.

`serving.http.security.install` puts the middleware in its place.
"""

from fastapi import FastAPI

from serving.settings import Settings
from serving.telemetry.logs import configure_logging
from serving.telemetry.metrics import Telemetry, empty_multiprocess_dir
from serving.telemetry.middleware import TelemetryMiddleware

__all__ = ["Telemetry", "configure_logging", "empty_multiprocess_dir", "install"]


def install(app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
    """Put request ids, HTTP metrics, the access log and the answer to crashes around what was added before."""
    app.add_middleware(
        TelemetryMiddleware,
        telemetry=telemetry,
        project=settings.google_cloud_project,
        trusted_proxies=settings.trusted_proxies,
        root_path=settings.root_path,
    )
