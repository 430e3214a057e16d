"""How HTTP connections end: none is closed on a client that is just about to ask, or that has not finished asking."""

from asyncio import Transport
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S: Final = 0.5
"""How long an idle connection stays open once the server has been told to stop, and an answered one for its request."""


class LingeringHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, but no connection is torn from under a client.

    uvicorn closes idle connections at once when it stops; a request that is on its way then gets no answer, and its
    client cannot know whether it was taken. Here it is answered, with `Connection: close`.

    And it closes a connection with its last answer, though the request's body may still be coming (a refusal does not
    wait for it): what the client sends then is answered by a reset, which can take the answer away. Here the rest is
    read and dropped first, for `LINGER_S` at most (RFC 9112, section 9.6).
    """

    _stopping = False

    def shutdown(self) -> None:
        """Called by the server, once for each connection, when it stops."""
        self._stopping = True
        if self._is_idle():
            self.loop.call_later(LINGER_S, self._close_if_idle)
        else:
            super().shutdown()
            self._close_late()

    def on_headers_complete(self) -> None:
        """Called by the parser for each request."""
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False
        if not self.cycle.keep_alive:
            self._close_late()

    def on_message_complete(self) -> None:
        """Called by the parser at each request's end."""
        super().on_message_complete()
        if isinstance(self.cycle.transport, _LateClose):
            self.cycle.transport.request_complete()

    def _close_late(self) -> None:
        if not isinstance(self.cycle.transport, _LateClose):
            self.cycle.transport = _LateClose(self)  # type: ignore[assignment]  # all else is the transport's own

    def _is_idle(self) -> bool:
        # there is no cycle before the first request
        return bool(getattr(self.cycle, "response_complete", True))

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()


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
