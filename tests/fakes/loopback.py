"""The HTTP server under every fake: what a client does that leaves in the middle of an answer is no news."""

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class LoopbackServer(ThreadingHTTPServer):
    """On a free port of 127.0.0.1, a thread for each connection."""

    def __init__(self, handler: Any) -> None:
        """Listen; `handler` is the class that answers."""
        super().__init__(("127.0.0.1", 0), handler)

    def serve_forever(self, poll_interval: float = 0.02) -> None:
        """Until `shutdown`, which waits for one interval, in seconds; half a second unless told otherwise."""
        super().serve_forever(poll_interval)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of whatever goes wrong here, but not of a client's time-out: tests read what stands on stderr."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
