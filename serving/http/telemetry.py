"""Around every request: its id, its metrics, its log line, and a problem document if the application crashed."""

import asyncio
import re
import time
from typing import Any, Final

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.paths import Paths
from serving.http.problems import refusal
from serving.platform.request_ids import new_request_id
from serving.settings import Settings
from serving.telemetry.clients import client_address
from serving.telemetry.logs import trace_fields
from serving.telemetry.metrics import Telemetry

CLIENT_LEFT: Final = 499
"""Status under which a request counts whose client left before the answer (nginx's convention)."""

_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
"""What a client's X-Request-ID must look like to be echoed and logged."""
_PROBES: Final = frozenset({"/health", "/healthz", "/livez", "/readyz", "/startup", "/metrics"})
_WANTED: Final = frozenset(
    {b"x-request-id", b"traceparent", b"x-cloud-trace-context", b"user-agent", b"content-length"}
)


class TelemetryMiddleware:
    """The outermost middleware.

    `scope["state"]` gets `request_id`, `served` and `endpoint` (the route and its template), `client` (its address) and
    `log`, a dict whose members routes may fill: they join the request's log line. Neither image content nor a key may
    be put there.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, project: str, trusted_proxies: int, root_path: str) -> None:
        self._app = app
        self._telemetry = telemetry
        self._project = project
        self._trusted_proxies = trusted_proxies
        self._root_path = root_path
        self._paths: Paths | None = None
        self._log = structlog.get_logger("serving")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = {name: value for name, value in scope["headers"] if name in _WANTED}
        state = self._open(scope, headers)
        inner = self._paths_of(scope).enter(scope)
        without_body = scope["method"] == "HEAD"
        named = [(b"x-request-id", state["request_id"].encode())]
        if state["correlation_id"]:
            named.append((b"x-correlation-id", state["correlation_id"]))
        status = 0
        size = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *named]}
            elif without_body:
                message = {**message, "body": b""}
            else:
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(inner, receive, send_with_id)
        except asyncio.CancelledError:
            # the server stops, and this request took longer than it waits for
            if status:
                raise
            await refusal("overloaded", "the server is stopping; try again", scope)(scope, receive, send_with_id)
        except Exception as error:
            self._log.error("unhandled error", exc_info=error)
            if status:
                raise
            answer = refusal("internal_error", "the server failed; its log has this request_id", scope)
            await answer(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - started
            self._telemetry.http(scope["method"], state["endpoint"], status or CLIENT_LEFT, seconds)
            self._write(scope, headers, status or CLIENT_LEFT, size, seconds)

    def _open(self, scope: Scope, headers: dict[bytes, bytes]) -> dict[str, Any]:
        given = headers.get(b"x-request-id", b"")
        state: dict[str, Any] = scope.setdefault("state", {})
        # always our own: what labels are joined by must name one request, and not be guessed
        state["request_id"] = new_request_id()
        state["correlation_id"] = given if _SANE_ID.fullmatch(given) else b""
        state["client"] = client_address(scope, self._trusted_proxies)
        state["log"] = {}
        trace = trace_fields(_text(headers, b"traceparent"), _text(headers, b"x-cloud-trace-context"), self._project)
        structlog.contextvars.clear_contextvars()
        if state["correlation_id"]:
            trace["correlation_id"] = state["correlation_id"].decode()
        structlog.contextvars.bind_contextvars(request_id=state["request_id"], **trace)
        return state

    def _paths_of(self, scope: Scope) -> Paths:
        if self._paths is None:
            # all routes stand by the first request
            self._paths = Paths(scope["app"].routes, self._root_path)
        return self._paths

    def _write(self, scope: Scope, headers: dict[bytes, bytes], status: int, size: int, seconds: float) -> None:
        state = scope["state"]
        endpoint: str = state["endpoint"]
        if status < 400 and (endpoint in _PROBES or endpoint.startswith("/v2/health")):
            write = self._log.debug
        elif status >= 500:
            write = self._log.error if status == 500 else self._log.warning
        else:
            write = self._log.info
        # the query string stays out: people put secrets there
        write(
            f"{scope['method']} {endpoint} {status}",
            httpRequest={
                "requestMethod": scope["method"],
                "requestUrl": scope["path"][:256],
                "status": status,
                "requestSize": _text(headers, b"content-length") or "0",
                "responseSize": str(size),
                "userAgent": (_text(headers, b"user-agent") or "")[:256],
                "remoteIp": state["client"],
                "latency": f"{seconds:.6f}s",
                "protocol": f"HTTP/{scope.get('http_version', '1.1')}",
            },
            **state["log"],
        )


def _text(headers: dict[bytes, bytes], name: bytes) -> str | None:
    value = headers.get(name)
    return value.decode("latin-1") if value is not None else None


def install(app: FastAPI, settings: Settings, telemetry: Telemetry) -> None:
    """Put request ids, HTTP metrics, the access log and the answer to crashes around what was added before."""
    app.add_middleware(
        TelemetryMiddleware,
        telemetry=telemetry,
        project=settings.google_cloud_project,
        trusted_proxies=settings.trusted_proxies,
        root_path=settings.root_path,
    )
