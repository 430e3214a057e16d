"""Response headers that keep browsers from doing anything clever with the answers."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = tuple[tuple[bytes, bytes], ...]

_ALWAYS: Final[Headers] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
_API: Final[Headers] = (
    *_ALWAYS,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)
_TLS: Final = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
_DOCS: Final = ("/docs", "/redoc")
_PAGES: Final[Headers] = (
    *_ALWAYS,
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'none'",
    ),
)
"""For the pages that describe the API: scripts of this server and their own few lines, nothing from elsewhere."""


class SecurityHeadersMiddleware:
    """Adds the headers to every response that does not bring its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = _PAGES if scope["path"].startswith(_DOCS) else _API
        if scope["scheme"] == "https":
            wanted = (*wanted, _TLS)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = list(message.get("headers", ()))
                names = {name.lower() for name, _ in present}
                message = {**message, "headers": present + [h for h in wanted if h[0] not in names]}
            await send(message)

        await self._app(scope, receive, send_with_headers)
