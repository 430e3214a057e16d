"""What stands between the network and the routes: API keys, body sizes, rate limits, response headers."""

from typing import Final

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from serving.http.security.gate import GateMiddleware
from serving.http.security.headers import SecurityHeadersMiddleware
from serving.http.security.policy import Policy
from serving.http.telemetry import install as install_telemetry
from serving.platform.errors import SecurityConfigError
from serving.settings import Settings
from serving.telemetry.metrics import Telemetry

__all__ = ["SecurityConfigError", "install"]

EXPOSED_HEADERS: Final = (
    "X-Request-ID",
    "X-Correlation-ID",
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
)


def install(app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
    """Put all middleware around `app`, from the routes outwards: gate, telemetry, CORS, security headers.

    Telemetry sees what the gate refuses; browsers may read every answer, a crash's included.

    Raises:
        SecurityConfigError: REQUIRE_AUTH without API_KEYS, or a rate limit that cannot be read.
    """
    app.add_middleware(GateMiddleware, policy=Policy.of(settings), telemetry=telemetry)
    install_telemetry(app, settings, telemetry)
    if settings.cors_allowed:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_allowed,
            allow_methods=("GET", "POST"),
            allow_headers=("Content-Type", "X-API-Key", "X-Request-ID"),
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(SecurityHeadersMiddleware)
