"""The address that users have: an HTTP front that shares requests among revisions as the traffic split says.

As Google does, it takes some seconds to follow a change of traffic, takes 32 MiB of a body, and keeps /healthz itself.
"""

import http.client
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

LAG_S = 3.0
MOST = 32 * 1024 * 1024
_HOP = {"connection", "host", "transfer-encoding"}


class Front:
    """Weighted round robin: of every hundred requests, each backend gets its percent."""

    def __init__(self) -> None:
        self._split: dict[str, int] = {}
        self._addresses: dict[str, str] = {}
        self._owed: dict[str, float] = {}
        self._next: tuple[dict[str, int], dict[str, str]] | None = None
        self._due = 0.0
        self._lock = threading.Lock()
        self.answered: Counter[str] = Counter()
        """Backend -> requests it was given."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def forward(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                if self.path == "/healthz" or length > MOST:
                    self.close_connection = True
                    self.send_error(404 if self.path == "/healthz" else 413)
                    return
                body = self.rfile.read(length)
                url = urlparse(outer.next())
                backend = http.client.HTTPConnection(url.hostname or "", url.port, timeout=60)
                try:
                    kept = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
                    backend.request(self.command, self.path, body, kept)
                    answer = backend.getresponse()
                    payload = answer.read()
                    self.send_response(answer.status)
                    for key, value in answer.getheaders():
                        if key.lower() not in _HOP | {"content-length"}:
                            self.send_header(key, value)
                    self.send_header("content-length", str(len(payload)))
                    self.end_headers()
                    self.wfile.write(payload)
                except OSError:
                    self.send_error(503)
                finally:
                    backend.close()

            do_GET = do_POST = forward

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def share(self, split: dict[str, int], addresses: dict[str, str]) -> None:
        """Some seconds from now on: backend -> percent, and where each answers; at once where nobody answers yet."""
        with self._lock:
            self._next = (dict(split), dict(addresses))
            self._due = time.monotonic() + (LAG_S if self._split else 0.0)

    def next(self) -> str:
        """Address of the backend whose turn it is."""
        with self._lock:
            if self._next is not None and time.monotonic() >= self._due:
                self._split, self._addresses = self._next
                self._owed, self._next = dict.fromkeys(self._split, 0.0), None
            for name, percent in self._split.items():
                self._owed[name] += percent / 100
            chosen = max(self._owed, key=lambda name: self._owed[name])
            self._owed[chosen] -= 1
            self.answered[chosen] += 1
            return self._addresses[chosen]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
