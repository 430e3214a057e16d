"""Keys, body sizes and rate limits, decided on the headers alone before a byte of the body is read."""

import asyncio
from collections import OrderedDict
from typing import Final

from limits import parse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.paths import Served
from serving.http.problems import Reason, refusal, shown
from serving.http.security.limits import Allowance, RateLimits
from serving.http.security.policy import Policy, Rule
from serving.telemetry.clients import bucket
from serving.telemetry.metrics import Telemetry

FAILED_KEYS: Final = parse("10/minute")
"""Wrong or missing keys a client may send before it is told to slow down."""
MOST_KNOWN: Final = 10_000
"""Clients with a key that are remembered."""
LINGER_S: Final = 2.0
"""How long a refused client may go on sending: to close at once would tear its answer away from it."""

_BODY_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_WANTED: Final = frozenset({b"x-api-key", b"content-length", b"transfer-encoding"})


class _RefusedError(Exception):
    """Not to be let in; becomes a problem document."""

    def __init__(
        self, reason: Reason, detail: str, metric: str, allowance: Allowance | None = None, allow: str = ""
    ) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail
        self.metric = metric
        self.allowance = allowance
        self.allow = allow


class GateMiddleware:
    """Lets a request through to the routes, or answers it without reading its body.

    Needs `served`, `endpoint` and `client` in the scope's state (`TelemetryMiddleware`). Order: path, key, size and
    encoding, rate: what no route serves is 404 for everybody, and a request that is refused for its key or its body
    takes nothing from anyone's allowance.
    """

    def __init__(self, app: ASGIApp, policy: Policy, telemetry: Telemetry) -> None:
        self._app = app
        self._policy = policy
        self._telemetry = telemetry
        self._rates = RateLimits({**policy.limits, "failed_key": FAILED_KEYS}, policy.storage_uri, telemetry)
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Clients and the keys they have shown, latest last."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value for name, value in scope["headers"] if name in _WANTED}
        rule = self._policy.rule(scope["state"]["endpoint"])
        try:
            _check_route(scope)
            caller = await self._authenticate(scope, headers)
            scope["state"]["caller"] = caller
            _check_size(headers, rule)
            _check_coding(scope)
            allowance = await self._count(scope, rule, caller)
        except _RefusedError as refused:
            self._telemetry.rejected(refused.metric)
            await _answer(refused, headers, rule, scope, receive, send)
            return
        if b"transfer-encoding" in headers:
            receive = _Counted(receive, rule.max_bytes)
        if allowance is not None:
            send = _with_headers(send, allowance.headers())
        if isinstance(receive, _Counted):
            await self._pass_counted(scope, receive, send, rule)
        else:
            await self._app(scope, receive, send)

    async def _authenticate(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Name of the caller: its key's where it has one, else its network's."""
        client = f"ip:{bucket(scope['state']['client'])}"
        key = headers.get(b"x-api-key")
        keys = self._policy.keys
        holder = keys.identify(key) if key is not None and keys else None
        if holder is not None:
            await self._admit(client, holder)
            scope["state"]["log"]["api_key_id"] = holder
            return f"key:{holder}"
        # where keys are optional, a wrong one is still an error that its sender should hear of
        wrong = key is not None and bool(keys)
        if not self._policy.needs_key(scope["state"]["endpoint"]) and not wrong:
            return client
        allowance = await self._rates.hit("failed_key", client)
        if not allowance.allowed:
            raise _throttled(allowance)
        detail = "this API key is not valid" if wrong else "send an API key in the header X-API-Key"
        raise _RefusedError("unauthorized", detail, "unauthorized")

    async def _admit(self, client: str, holder: str) -> None:
        """Let a right key in, unless its client is guessing: then a right guess looks as a wrong one does.

        A client that has shown this key before it, or another behind its address, began to guess is let in: strangers
        behind one address must not lock a customer out.
        """
        pair = (client, holder)
        if pair in self._known:
            self._known.move_to_end(pair)
            return
        allowance = await self._rates.look("failed_key", client)
        if not allowance.allowed:
            raise _throttled(allowance)
        self._known[pair] = None
        if len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    async def _count(self, scope: Scope, rule: Rule, caller: str) -> Allowance | None:
        if rule.family is None or not self._policy.limits or scope["method"] not in _BODY_METHODS:
            return None
        allowance = await self._rates.hit(rule.family, caller)
        if not allowance.allowed:
            limit = allowance.limit
            detail = f"{limit} are allowed here; try again in {allowance.retry_after_s} s"
            raise _RefusedError("rate_limited", detail, "rate_limited", allowance)
        return allowance

    async def _pass_counted(self, scope: Scope, receive: "_Counted", send: Send, rule: Rule) -> None:
        """Pass on a body of unknown length; whatever the application makes of a cut one, the answer is 413."""
        started = False

        async def send_unless_cut(message: Message) -> None:
            nonlocal started
            if receive.cut and not started:
                return
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_unless_cut)
        except _BodyCutError:
            if started:
                raise
        if receive.cut and not started:
            self._telemetry.rejected("request_too_large")
            refused = _RefusedError("request_too_large", _too_large(rule), "request_too_large")
            await _answer(refused, {b"transfer-encoding": b"chunked"}, rule, scope, receive.rest, send)


class _BodyCutError(HTTPException):
    """The body passed its limit. An HTTPException, because frameworks turn any other error in a body into a 400."""


class _Counted:
    """A `receive` that stops at `max_bytes`."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self.rest = receive
        self._left = max_bytes
        self.cut = False

    async def __call__(self) -> Message:
        message = await self.rest()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                self.cut = True
                raise _BodyCutError(413, "the body is too large")
        return message


def _throttled(allowance: Allowance) -> _RefusedError:
    detail = f"too many requests without a valid key; try again in {allowance.retry_after_s} s"
    return _RefusedError("rate_limited", detail, "auth_throttled", allowance)


def _check_route(scope: Scope) -> None:
    served: Served = scope["state"]["served"]
    if not served.exists:
        raise _RefusedError("not_found", f"no route {shown(scope['path'])}; /docs lists them", "not_found")
    if scope["method"] not in served.methods:
        allowed = ", ".join(sorted(served.methods))
        detail = f"{shown(scope['method'])} is not possible here; use {allowed}"
        raise _RefusedError("method_not_allowed", detail, "method_not_allowed", allow=allowed)


def _check_size(headers: dict[bytes, bytes], rule: Rule) -> None:
    if _declared(headers) > rule.max_bytes:
        raise _RefusedError("request_too_large", _too_large(rule), "request_too_large")


def _check_coding(scope: Scope) -> None:
    """A body that is compressed once more is told of: as it stands it would be taken for a damaged one."""
    codings = [value.decode("latin-1") for name, value in scope["headers"] if name == b"content-encoding"]
    said = ", ".join(codings).strip()
    if scope["method"] in _BODY_METHODS and said.lower() not in ("", "identity"):
        detail = f"the body is encoded as {shown(said)}, which is not read here; send it without Content-Encoding"
        raise _RefusedError("unsupported_media_type", detail, "unsupported_media_type")


def _too_large(rule: Rule) -> str:
    return f"the body has more than {rule.max_bytes:,} bytes, the limit for this route"


def _declared(headers: dict[bytes, bytes]) -> int:
    """Content-Length, 0 without one; the HTTP parser has already refused what is no number."""
    return int(headers.get(b"content-length", b"0"))


def _with_headers(send: Send, extra: list[tuple[bytes, bytes]]) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return send_with_headers


async def _answer(
    refused: _RefusedError, headers: dict[bytes, bytes], rule: Rule, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer at once, then let the client finish sending before the connection ends or goes on."""
    extra: list[tuple[bytes, bytes]] = []
    if refused.allowance is not None:
        extra += [*refused.allowance.headers(), (b"retry-after", b"%d" % refused.allowance.retry_after_s)]
    if refused.allow:
        extra.append((b"allow", refused.allow.encode()))
    if refused.reason == "unauthorized":
        extra.append((b"www-authenticate", b'ApiKey header="X-API-Key"'))
    if refused.reason == "unsupported_media_type":
        # as RFC 9110, 15.5.16, has it: which encodings are taken
        extra.append((b"accept-encoding", b"identity"))
    endless = b"transfer-encoding" in headers or _declared(headers) > rule.max_bytes
    if endless:
        extra.append((b"connection", b"close"))
    has_body = endless or _declared(headers) > 0

    async def send_and_linger(message: Message) -> None:
        if message["type"] == "http.response.body" and has_body:
            # the client has all of its answer now, by Content-Length
            await send({**message, "more_body": True})
            await _discard(receive)
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    response = refusal(refused.reason, refused.detail, scope)
    await response(scope, receive, _with_headers(send_and_linger, extra))


async def _discard(receive: Receive) -> None:
    """Read and drop what the client still sends, for `LINGER_S` at most."""
    try:
        async with asyncio.timeout(LINGER_S):
            while True:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
