"""The address that users have: an HTTP front that shares requests among revisions as the traffic split says."""

import http.client
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

_HOP = {"connection", "host", "transfer-encoding"}


class Front:
    """Weighted round robin: of every hundred requests, each backend gets its percent."""

    def __init__(self) -> None:
        self._split: dict[str, int] = {}
        self._addresses: dict[str, str] = {}
        self._owed: dict[str, float] = {}
        self._lock = threading.Lock()
        self.answered: Counter[str] = Counter()
        """Backend -> requests it was given."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
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
        """From now on: backend -> percent, and where each answers."""
        with self._lock:
            self._split, self._addresses = dict(split), dict(addresses)
            self._owed = dict.fromkeys(split, 0.0)

    def next(self) -> str:
        """Address of the backend whose turn it is."""
        with self._lock:
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
