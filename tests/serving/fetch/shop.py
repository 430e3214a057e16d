"""An image host on loopback that behaves in every way a feed's host may: well, badly, and with intent."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import formatdate

Answer = Callable[[socket.socket], None]


class Shop:
    """Answers each path as `pages` says; counts what was asked, and how much of it at once."""

    def __init__(self, pages: dict[str, bytes | Answer]) -> None:
        self.pages = pages
        self.asked: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {}
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def close(self) -> None:
        self._closed = True
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            with suppress(OSError):
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(60)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65536)
                if not piece:
                    return
                head += piece
            path = head.split(b" ", 2)[1].decode()
            with self._lock:
                self.asked[path] += 1
                self.times.setdefault(path, []).append(time.monotonic())
                self._now += 1
                self.most_at_once = max(self.most_at_once, self._now)
            try:
                page = self.pages.get(path, status(404))
                if callable(page):
                    page(connection)
                else:
                    connection.sendall(ok(page))
            finally:
                with self._lock:
                    self._now -= 1


def ok(body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n".encode() + body


def status(code: int, headers: str = "") -> Answer:
    return lambda s: s.sendall(f"HTTP/1.1 {code} X\r\nContent-Length: 0\r\nConnection: close\r\n{headers}\r\n".encode())


def redirect(to: str, code: int = 302) -> Answer:
    return status(code, f"Location: {to}\r\n")


def raw(data: bytes) -> Answer:
    return lambda s: s.sendall(data)


def first(*answers: Answer) -> Answer:
    """One answer after another; the last for ever."""
    left = list(answers)

    def answer(connection: socket.socket) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(connection)

    return answer


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    until = time.monotonic() + 60
    while time.monotonic() < until:
        connection.sendall(b"x" * 65536)


def dripping_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nConnection: close\r\n\r\n")
    for _ in range(100):
        connection.sendall(b"x")
        time.sleep(0.1)


def dripping_headers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for number in range(100):
        connection.sendall(b"X-%d: y\r\n" % number)
        time.sleep(0.1)


def silent(connection: socket.socket) -> None:
    del connection
    time.sleep(5)


HOSTILE: dict[str, tuple[bytes | Answer, str]] = {
    "/gone": (status(410), "not_found"),
    "/missing": (status(404), "not_found"),
    "/forbidden": (status(403), "forbidden"),
    "/legal": (status(451), "forbidden"),
    "/teapot": (status(418), "status_refused"),
    "/partial": (status(206), "status_refused"),
    "/loop": (redirect("/loop"), "too_many_redirects"),
    "/nowhere": (redirect("file:///etc/passwd"), "redirect_invalid"),
    "/data": (redirect("data:image/png;base64,AAAA"), "redirect_invalid"),
    "/metadata": (redirect("http://169.254.169.254/computeMetadata/v1/"), "address_refused"),
    "/inside": (redirect("http://[::ffff:10.0.0.1]/"), "address_refused"),
    "/decimal": (redirect("http://2130706433/"), "address_refused"),
    "/endless": (endless, "too_large"),
    "/announced": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n"), "too_large"),
    "/short": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\nConnection: close\r\n\r\nabc"), "incomplete"),
    "/torn": (raw(b"HTTP/1.1 200 OK\r\nContent-Le"), "incomplete"),
    "/closed": (raw(b""), "incomplete"),
    "/chunk": (raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nabc"), "incomplete"),
    "/nonsense": (raw(b"220 mail.example ESMTP\r\n\r\n"), "protocol_error"),
    "/header": (raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000 + b"\r\n\r\n"), "protocol_error"),
    "/gzip": (raw(ok(b"\x1f\x8b", "Content-Encoding: gzip\r\n")), "encoding_refused"),
    "/empty": (b"", "empty"),
    "/drip": (dripping_body, "timeout"),
    "/headers": (dripping_headers, "timeout"),
    "/silent": (silent, "timeout"),
    "/later": (status(503, "Retry-After: 3600\r\n"), "unavailable"),
    "/limited": (status(429, f"Retry-After: {formatdate(time.time() + 9999, usegmt=True)}\r\n"), "rate_limited"),
}
"""Path -> how it answers, and the reason that a fetch gives for it."""


@contextmanager
def shop(pages: dict[str, bytes | Answer]) -> Iterator[Shop]:
    opened = Shop(pages)
    try:
        yield opened
    finally:
        opened.close()
