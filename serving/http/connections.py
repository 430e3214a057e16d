"""How HTTP connections begin and end: bounded before anything is parsed, and never torn from under a client."""

from asyncio import Transport
from typing import TYPE_CHECKING, Any, Final

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.http.admission import Admission, most_connections
from serving.http.problems import MEDIA_TYPE, RETRY_AFTER_S, STATUS, Reason, document
from serving.platform.request_ids import new_request_id

if TYPE_CHECKING:
    from serving.http.service import Service

LINGER_S: Final = 0.5
"""How long an idle connection stays open once the server has been told to stop, and an answered one for its request."""

MAX_HEAD_BYTES: Final = 32 * 1024
"""Request line and header lines of one request together; also what a chunked body may have around no data at all."""

MOST_FRAMING: Final = 16
"""Bytes that a chunked body may have around each byte of its data: chunks of one byte have five."""

MAX_HEAD_LINES: Final = 100
MAX_TARGET_BYTES: Final = 8 * 1024
"""The request's target: path and query."""

MOST_PIPELINED: Final = 16
"""Requests that may wait on one connection for the answers before theirs."""


class _RefusedError(Exception):
    """Raised in a parser's callback; what to answer stands in the protocol."""


class LingeringHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds, and no connection is torn from under a client.

    Bytes and lines of a request's head are counted before they are parsed, so the worst head costs `MAX_HEAD_BYTES` and
    a read's worth beside; connections enter by `Admission`. What is refused here never reaches the application.

    uvicorn closes idle connections at once when it stops; a request that is on its way then gets no answer, and its
    client cannot know whether it was taken. Here it is answered, with `Connection: close`.

    And it closes a connection with its last answer, though the request's body may still be coming (a refusal does not
    wait for it): what the client sends then is answered by a reset, which can take the answer away. Here the rest is
    read and dropped first, for `LINGER_S` at most (RFC 9112, section 9.6).
    """

    address = ""
    _stopping = False
    _refused = False
    _in_head = True
    """The next bytes belong to a request's head."""
    _head_bytes = 0
    _head_lines = 0
    _data_bytes = 0
    """Of the request's body so far, without what a chunked one has around them."""
    _framing_bytes = 0
    _message_ended = False
    _since = 0.0

    # --- as Admission sees it -------------------------------------------------------------------------------

    @property
    def waits_since(self) -> float | None:
        """Loop time from which a whole request head has been owed; None while a request is being answered."""
        return self._since if self._is_idle() else None

    @property
    def is_incomplete(self) -> bool:
        """Whether the client owes its request's head or a part of its body."""
        return self._is_idle() or bool(self.cycle.more_body)

    @property
    def unread_bytes(self) -> int:
        """Bytes of answers that the client has not taken yet."""
        return self.transport.get_write_buffer_size()

    def drop(self) -> None:
        """End the connection now, whatever is still to be written."""
        self.transport.abort()

    # --- the connection -------------------------------------------------------------------------------------

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Called by the loop: the connection enters, or is told that there is no room."""
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._since = self.loop.time()
        if self._admission().enter(self):
            super().connection_made(transport)
            return
        self.transport = transport
        self._refuse("overloaded", "the server has no room for another connection; try again")
        transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        self._admission().leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by the loop: counts what belongs to a head, then parses it."""
        while data:
            if self._refused:
                return
            if self._in_head:
                room = MAX_HEAD_BYTES - self._head_bytes
                piece, data = data[:room], data[room:]
                self._head_bytes += len(piece)
                super().data_received(piece)
                # what completes a head sets the count back to 0
                if self._head_bytes >= MAX_HEAD_BYTES:
                    self._refuse_head()
            else:
                piece, data = data, b""
                before, self._message_ended = self._data_bytes, False
                super().data_received(piece)
                if not self._message_ended:
                    # sizes, extensions and trailers of a chunked body: nobody wants them, but they could go on for ever
                    self._framing_bytes += len(piece) - (self._data_bytes - before)
                if self._framing_bytes >= MAX_HEAD_BYTES + MOST_FRAMING * self._data_bytes:
                    self._refuse_head()

    def on_url(self, url: bytes) -> None:
        """Called by the parser."""
        super().on_url(url)
        if len(self.url) > MAX_TARGET_BYTES:
            self._refuse("uri_too_long", f"the request's target has more than {MAX_TARGET_BYTES:,} bytes, the limit")
            raise _RefusedError

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser for each header line, trailers included."""
        self._head_lines += 1
        if self._head_lines > MAX_HEAD_LINES:
            self._refuse_head()
            raise _RefusedError
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Called by the parser for each request."""
        if len(self.pipeline) >= MOST_PIPELINED:
            self._refused = True
            self.transport.close()
            raise _RefusedError
        if self.parser.get_http_version() == "1.1" and sum(name == b"host" for name, _ in self.headers) != 1:
            # RFC 9112, section 3.2: proxies before and after must see the same one
            self._refuse("malformed_request", "an HTTP/1.1 request has one header line Host; send it")
            raise _RefusedError
        self._in_head = False
        self._head_bytes = self._framing_bytes = self._data_bytes = 0
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False
        if not self.cycle.keep_alive:
            self._close_late()

    def on_body(self, body: bytes) -> None:
        """Called by the parser with a piece of a request's body."""
        self._data_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Called by the parser at each request's end."""
        self._message_ended = True
        self._in_head = True
        self._head_bytes = self._head_lines = 0
        self._framing_bytes = self._data_bytes = 0
        super().on_message_complete()
        if isinstance(self.cycle.transport, _LateClose):
            self.cycle.transport.request_complete()

    def on_response_complete(self) -> None:
        """Called with the end of each answer."""
        self._since = self.loop.time()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Called by the server, once for each connection, when it stops."""
        self._stopping = True
        if self._is_idle():
            self.loop.call_later(LINGER_S, self._close_if_idle)
        else:
            super().shutdown()
            self._close_late()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature; a problem says more
        """Called where the parser fails: the bytes are no HTTP request, or one of ours has refused it already."""
        self._refuse("malformed_request", "the bytes received are no HTTP/1.1 request")

    # --- how it ends ----------------------------------------------------------------------------------------

    def _refuse_head(self) -> None:
        self._refuse(
            "headers_too_large",
            f"the request's head has more than {MAX_HEAD_BYTES:,} bytes or {MAX_HEAD_LINES} lines, the limits",
        )

    def _refuse(self, reason: Reason, detail: str) -> None:
        """Answer with a problem, read and drop what still comes for `LINGER_S`, close."""
        if self._refused:
            return
        self._refused = True
        service = self._service()
        if service is not None:
            service.telemetry.rejected(reason)
        if not (self._is_idle() or self._gives_up_its_body()) or self._has_answered_its_body():
            # an answer is still owed to the request before, or this one has its own: another one may not come between
            self.transport.close()
            return
        request_id = new_request_id()
        body = orjson.dumps(document(STATUS[reason], detail, request_id, reason))
        head = [
            f"HTTP/1.1 {STATUS[reason]} Refused",
            f"content-type: {MEDIA_TYPE}",
            f"content-length: {len(body)}",
            f"x-request-id: {request_id}",
            "connection: close",
            *([f"retry-after: {RETRY_AFTER_S}"] if STATUS[reason] == 503 else []),
        ]
        self.transport.write("\r\n".join([*head, "", ""]).encode() + body)
        self.loop.call_later(LINGER_S, self.transport.close)

    def _gives_up_its_body(self) -> bool:
        """Let go of the one request under way, of which the body is no HTTP, so that its sender can be told."""
        cycle = self.cycle
        if self.pipeline or not cycle.more_body or cycle.response_started:
            return False
        # as for a sender that has gone: whatever is still answered to it is dropped
        cycle.disconnected = True
        cycle.message_event.set()
        return True

    def _has_answered_its_body(self) -> bool:
        return bool(getattr(self.cycle, "response_complete", False) and getattr(self.cycle, "more_body", False))

    def _admission(self) -> Admission:
        state: Any = self.server_state
        found: Admission | None = getattr(state, "admission", None)
        if found is None:
            service = self._service()
            most, timeout_s = (1000, 10.0) if service is None else _bounds(service)
            found = state.admission = Admission(most_connections(most), timeout_s, self.loop)
        return found

    def _service(self) -> "Service | None":
        found: Service | None = getattr(getattr(self.app, "state", None), "service", None)
        return found

    def _close_late(self) -> None:
        if not isinstance(self.cycle.transport, _LateClose):
            self.cycle.transport = _LateClose(self)  # type: ignore[assignment]  # all else is the transport's own

    def _is_idle(self) -> bool:
        # there is no cycle before the first request
        return bool(getattr(self.cycle, "response_complete", True))

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()


def _bounds(service: "Service") -> tuple[int, float]:
    return service.settings.max_connections, service.settings.header_timeout_s


class _LateClose:
    """The transport of a connection's last answer: closed once the request is complete, or `LINGER_S` later."""

    def __init__(self, protocol: LingeringHttp) -> None:
        self._transport: Transport = protocol.transport
        self._loop = protocol.loop
        self._cycle = protocol.cycle
        self._answered = False

    def close(self) -> None:
        """Called with the end of the answer."""
        self._answered = True
        if self._cycle.more_body:
            self._loop.call_later(LINGER_S, self._transport.close)
        else:
            self._transport.close()

    def request_complete(self) -> None:
        """Nothing more is to come."""
        if self._answered:
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
