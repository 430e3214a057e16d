"""What the server says of itself: Prometheus metrics, JSON log lines, request ids.

Wiring, outermost last:

    telemetry = Telemetry(settings.prometheus_multiproc_dir)
    security.install(app, settings, telemetry)
    install(app, settings, telemetry)
"""

from fastapi import FastAPI

from serving.settings import Settings
from serving.telemetry.logs import configure_logging
from serving.telemetry.metrics import Telemetry, empty_multiprocess_dir
from serving.telemetry.middleware import TelemetryMiddleware

__all__ = ["Telemetry", "configure_logging", "empty_multiprocess_dir", "install"]


def install(app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
    """Put request ids, HTTP metrics and the access log around everything else; call after all other middleware."""
    app.add_middleware(
        TelemetryMiddleware,
        telemetry=telemetry,
        project=settings.google_cloud_project,
        trusted_proxies=settings.trusted_proxies,
    )
