"""Rate limits: the `limits` library's fixed windows, in memory or in a Redis that all replicas share."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, Storage
from limits.aio.strategies import FixedWindowRateLimiter
from limits.errors import StorageError
from limits.storage import storage_from_string

from serving.platform.errors import SecurityConfigError
from serving.telemetry.metrics import Telemetry

Family = Literal["predict", "batch", "explain", "compare", "other", "failed_key"]
"""Routes that share a bucket."""

MEMORY: Final = "memory://"
STORAGE_TIMEOUT_S: Final = 0.25
"""A storage slower than this counts as down: no request waits longer for a number."""
RETRY_STORAGE_S: Final = 5.0
"""How long a storage that failed is left alone."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a client may still do in this window."""

    allowed: bool
    limit: RateLimitItem
    remaining: int
    reset_at_s: float
    """Unix time at which the window ends."""

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until the window ends, at least 1."""
        return max(1, -int(-(self.reset_at_s - time.time()) // 1))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """`X-RateLimit-*` as slowapi writes them."""
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit.amount),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % self.reset_at_s),
        ]


class RateLimits:
    """Counts requests by family and client.

    Fixed windows, slowapi's default: one counter a client, an exact `Retry-After`, and a cost that stays flat with
    the number of clients (the library's moving window takes 1 ms a request from 100 clients on).

    A shared storage that fails is replaced by this process's memory until it answers again: limits then hold for each
    replica by itself. Neither does an outage of Redis stop the service, nor does it open the gates.
    """

    def __init__(self, limits: Mapping[Family, RateLimitItem], storage_uri: str, telemetry: Telemetry) -> None:
        self._limits = limits
        self._telemetry = telemetry
        self._memory = FixedWindowRateLimiter(MemoryStorage())
        self._shared = None if storage_uri == MEMORY else FixedWindowRateLimiter(_open(storage_uri))
        self._shared_down_until = 0.0
        self._log = structlog.get_logger("serving")

    async def hit(self, family: Family, client: str) -> Allowance:
        """Count one request of `client` against its family's limit."""
        return await self._ask(family, client, counted=True)

    async def look(self, family: Family, client: str) -> Allowance:
        """What `client` may do, without counting."""
        return await self._ask(family, client, counted=False)

    async def _ask(self, family: Family, client: str, *, counted: bool) -> Allowance:
        if self._shared is not None and time.monotonic() >= self._shared_down_until:
            try:
                return await self._allowance(self._shared, family, client, counted)
            except (StorageError, OSError) as error:
                self._shared_down_until = time.monotonic() + RETRY_STORAGE_S
                self._telemetry.rate_limit_storage_failed()
                self._log.error(
                    "rate limit storage failed; each process limits by itself until it answers",
                    error=f"{type(error).__name__}: {error}",
                    retry_in_s=RETRY_STORAGE_S,
                )
        return await self._allowance(self._memory, family, client, counted)

    async def _allowance(
        self, limiter: FixedWindowRateLimiter, family: Family, client: str, counted: bool
    ) -> Allowance:
        limit = self._limits[family]
        ask = limiter.hit if counted else limiter.test
        allowed = await ask(limit, family, client)
        stats = await limiter.get_window_stats(limit, family, client)
        return Allowance(allowed, limit, stats.remaining, stats.reset_time)


def read_limit(variable: str, text: str) -> RateLimitItem:
    """A limit such as `30/minute`.

    Raises:
        SecurityConfigError: it cannot be read; names the variable.
    """
    try:
        return parse(text)
    except ValueError as error:
        raise SecurityConfigError(f"{variable}={text!r} is no rate limit; write it like 30/minute") from error


def check_storage(uri: str) -> None:
    """Check a storage URI without connecting.

    Raises:
        SecurityConfigError: neither memory nor Redis. The URI itself is not repeated: it may hold a password.
    """
    scheme, separator, _ = uri.partition("://")
    if not separator or (uri != MEMORY and scheme not in ("redis", "rediss", "redis+unix")):
        raise SecurityConfigError("RATE_LIMIT_STORAGE_URI is neither memory:// nor like redis://host:6379/0")


def _open(uri: str) -> Storage:
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff

    options: dict[str, Any] = {
        "implementation": "redispy",
        "wrap_exceptions": True,
        "socket_timeout": STORAGE_TIMEOUT_S,
        "socket_connect_timeout": STORAGE_TIMEOUT_S,
        # a pooled connection that died while nobody asked is no outage: open another one and ask again
        "retry": Retry(NoBackoff(), 1),
    }
    storage = storage_from_string(f"async+{uri}", **options)
    assert isinstance(storage, Storage)
    return storage
