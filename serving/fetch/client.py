"""The fetch itself: one GET after another on kept connections, redirects followed by hand, tries that may help."""

import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpcore

from serving.fetch.addresses import DEADLINE, GuardedBackend
from serving.fetch.hosts import Hosts, retry_after_s
from serving.fetch.refusals import refusal
from serving.platform.errors import FetchRefusedError

MAX_URL: Final = 4096
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
"""A name in ASCII, or an IPv6 address without a zone."""
_HEADERS: Final[list[tuple[bytes | str, bytes | str]]] = [
    ("User-Agent", "ai-product-photo-detector"),
    ("Accept", "image/*,*/*;q=0.5"),
    # what is compressed in transit could be a bomb, and a photo gains nothing
    ("Accept-Encoding", "identity"),
]
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_BY_STATUS: Final = {
    401: "forbidden",
    403: "forbidden",
    404: "not_found",
    407: "forbidden",
    410: "not_found",
    429: "rate_limited",
    451: "forbidden",
    503: "unavailable",
}
_AGAIN: Final = frozenset({"rate_limited", "unavailable", "server_error", "incomplete", "unreachable"})


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """How far a fetch may go."""

    max_bytes: int = 10 * 2**20
    deadline_s: float = 20.0
    """For one photo: connections, redirects, headers and body; waiting for a host's turn is not counted."""
    connect_s: float = 5.0
    read_s: float = 10.0
    redirects: int = 5
    attempts: int = 3
    """Tries where the host may do better later: 429, 5xx, a torn answer, no connection."""
    max_wait_s: float = 60.0
    """Longest `Retry-After` that is waited for."""
    per_host: int = 4
    """Requests under way to one host."""
    rate_per_host: float = 0.0
    """Requests a second to one host; 0: as many as come."""


class Fetcher:
    """Fetches photos; every method may be called from many threads."""

    def __init__(
        self,
        limits: FetchLimits | None = None,
        allowed: frozenset[str] | None = None,
        trusted: frozenset[str] = frozenset(),
    ) -> None:
        """Open a pool of connections.

        Args:
            limits: bounds of every fetch.
            allowed: hosts that may be asked, each with its subdomains where it begins with a dot; None: any.
            trusted: hosts whose addresses may be private; nothing else on a private network is ever asked.
        """
        self.limits = limits or FetchLimits()
        self._allowed = allowed
        self._hosts = Hosts(self.limits.per_host, self.limits.rate_per_host)
        self._pool = httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=64,
            max_keepalive_connections=32,
            keepalive_expiry=15.0,
            network_backend=GuardedBackend(frozenset(host.lower() for host in trusted)),
        )

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def get(self, url: str) -> bytes:
        """The content behind `url`, at most `max_bytes`.

        Raises:
            FetchRefusedError: with the reason.
        """
        for attempt in range(1, self.limits.attempts + 1):
            try:
                return self._once(url)
            except _LaterError as later:
                if attempt == self.limits.attempts or later.wait_s > self.limits.max_wait_s:
                    raise later.refusal from later
                later.host_rest(self._hosts, attempt)
        raise AssertionError("the last attempt returns or raises")

    def _once(self, url: str) -> bytes:
        deadline: float | None = None
        for _ in range(self.limits.redirects + 1):
            url, host_name = checked(url)
            if not self._may_ask(host_name):
                raise refusal("host_refused", host_name[:100])
            host = self._hosts.of(host_name)
            with host.place():
                host.turn()
                if deadline is None:
                    deadline = time.monotonic() + self.limits.deadline_s
                token = DEADLINE.set(deadline)
                try:
                    answer = self._ask(url, host_name)
                finally:
                    DEADLINE.reset(token)
            if isinstance(answer, bytes):
                return answer
            url = answer.to
        raise refusal("too_many_redirects", f"more than {self.limits.redirects}")

    def _may_ask(self, host: str) -> bool:
        if self._allowed is None:
            return True
        return any(host == entry or (entry[:1] == "." and host.endswith(entry)) for entry in self._allowed)

    def _ask(self, url: str, host: str) -> "bytes | _Redirect":
        timeouts = {"connect": self.limits.connect_s, "read": self.limits.read_s, "write": self.limits.read_s}
        timeouts["pool"] = self.limits.deadline_s
        try:
            with self._pool.stream("GET", url, headers=_HEADERS, extensions={"timeout": timeouts}) as response:
                return self._read(response, url, host)
        except httpcore.TimeoutException as error:
            raise refusal("timeout", f"{self.limits.deadline_s:g} s") from error
        except httpcore.ConnectError as error:
            if isinstance(error.__cause__ or error.__context__, ssl.SSLError):
                raise refusal("tls_failed") from error
            raise _LaterError(refusal("unreachable"), host) from error
        except httpcore.RemoteProtocolError as error:
            # h11 says both with one class: an answer that breaks off, and one that is no HTTP
            reason = "incomplete" if "closed" in str(error) or "disconnected" in str(error) else "protocol_error"
            refused = refusal(reason)
            raise (_LaterError(refused, host) if reason == "incomplete" else refused) from error
        except httpcore.NetworkError as error:
            raise _LaterError(refusal("incomplete"), host) from error
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol, ValueError) as error:
            raise refusal("protocol_error") from error

    def _read(self, response: httpcore.Response, url: str, host: str) -> "bytes | _Redirect":
        headers = {name.lower().decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
        status = response.status
        if status in _REDIRECTS and "location" in headers:
            return _Redirect(_next(url, headers["location"]))
        if status != 200:
            reason = _BY_STATUS.get(status, "server_error" if status >= 500 else "status_refused")
            refused = refusal(reason, f"status {status}")
            if reason in _AGAIN:
                raise _LaterError(refused, host, retry_after_s(headers.get("retry-after")))
            raise refused
        if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise refusal("encoding_refused")
        announced = headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced[:20]) > self.limits.max_bytes:
            raise refusal("too_large", f"more than {self.limits.max_bytes:,} bytes")
        content = b"".join(self._bounded(response))
        if not content:
            raise refusal("empty")
        return content

    def _bounded(self, response: httpcore.Response) -> Iterator[bytes]:
        size = 0
        for piece in response.iter_stream():
            size += len(piece)
            if size > self.limits.max_bytes:
                raise refusal("too_large", f"more than {self.limits.max_bytes:,} bytes")
            if time.monotonic() > DEADLINE.get():
                raise refusal("timeout", f"{self.limits.deadline_s:g} s")
            yield piece


@dataclass(frozen=True, slots=True)
class _Redirect:
    to: str


class _LaterError(Exception):
    """A refusal that another try may cure."""

    def __init__(self, refusal: FetchRefusedError, host: str, wait_s: float | None = None) -> None:
        super().__init__(str(refusal))
        self.refusal, self.host, self._asked_s = refusal, host, wait_s

    @property
    def wait_s(self) -> float:
        """Seconds the host asks to wait; 0 where it says nothing."""
        return self._asked_s or 0.0

    def host_rest(self, hosts: Hosts, attempt: int) -> None:
        """Let the host rest as it asked, or twice as long as before."""
        hosts.of(self.host).rest(self.wait_s if self._asked_s is not None else 0.25 * 2**attempt)


def checked(url: str) -> tuple[str, str]:
    """The address as it is sent, in ASCII and without a fragment, and its host in lower case.

    Raises:
        FetchRefusedError: `url_invalid`.
    """
    if len(url) > MAX_URL:
        raise refusal("url_invalid", f"longer than {MAX_URL} characters")
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname or "", parts.port
        ascii_host = host if ":" in host else host.encode("idna").decode("ascii")
    except (ValueError, UnicodeError) as error:
        raise refusal("url_invalid") from error
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(ascii_host):
        raise refusal("url_invalid")
    if "@" in parts.netloc:
        raise refusal("url_invalid", "it carries a user name or password")
    netloc = f"[{ascii_host}]" if ":" in ascii_host else ascii_host
    netloc += f":{port}" if port is not None else ""
    path, query = (_quoted(part) for part in (parts.path or "/", parts.query))
    return urlunsplit((parts.scheme, netloc, path, query, "")), ascii_host.lower().rstrip(".")


def _quoted(text: str) -> str:
    """Spaces, control and non-ASCII characters percent-encoded; what is encoded already stays."""
    return "".join(
        c if "!" <= c <= "~" else "".join(f"%{b:02X}" for b in c.encode("utf-8", "surrogatepass")) for c in text
    )


def _next(url: str, location: str) -> str:
    to = urljoin(url, location.strip())
    if urlsplit(to).scheme not in ("http", "https"):
        raise refusal("redirect_invalid")
    return to
