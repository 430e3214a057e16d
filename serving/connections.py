"""How HTTP connections end when the server does: none is closed on a client that is just about to ask."""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_S: Final = 0.5
"""How long an idle connection stays open once the server has been told to stop."""


class LingeringHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, but an idle connection outlives the signal to stop by `LINGER_S`.

    uvicorn closes idle connections at once; a request that is on its way then gets no answer, and its client cannot
    know whether it was taken. Here it is answered, with `Connection: close`.
    """

    _stopping = False

    def shutdown(self) -> None:
        """Called by the server, once for each connection, when it stops."""
        self._stopping = True
        if self._is_idle():
            self.loop.call_later(LINGER_S, self._close_if_idle)
        else:
            super().shutdown()

    def on_headers_complete(self) -> None:
        """Called by the parser for each request."""
        super().on_headers_complete()
        if self._stopping:
            self.cycle.keep_alive = False

    def _is_idle(self) -> bool:
        # there is no cycle before the first request
        return bool(getattr(self.cycle, "response_complete", True))

    def _close_if_idle(self) -> None:
        if self._is_idle():
            self.transport.close()
