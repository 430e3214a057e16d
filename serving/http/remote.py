"""Photos that a caller names by address: fetched off the event loop, so many at once, and only from allowed hosts."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Self

import orjson

from serving.http.bounded_json import fit
from serving.http.problems import ProblemError, shown, url_reason
from serving.http.schemas import PhotoAddress
from serving.platform.errors import FetchRefusedError
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.fetch.client import Fetcher

ADDRESS_BYTES: Final = 32 * 1024
"""Of a JSON body with an address: four times what the longest one has, for those who escape every character."""
NO_FETCH: Final = "this server fetches no addresses; send the photo as multipart/form-data in the field `file`"
_GRACE_S: Final = 2.0
"""Beyond the fetch's own time: the name server is asked by the system's library, which has a patience of its own."""


def read_address(body: bytes | bytearray) -> PhotoAddress:
    """A JSON body as the address that it asks for.

    Raises:
        ProblemError: `invalid_request`.
    """
    try:
        return fit(PhotoAddress, orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise ProblemError("invalid_request", f"body: not JSON: {shown(error.msg)}") from None


class RemotePhotos:
    """Fetches photos for requests; a fetch that nobody waits for any more keeps its place until it has ended."""

    def __init__(self, fetcher: "Fetcher", places: int, timeout_s: float) -> None:
        """Open the places.

        Args:
            fetcher: what fetches, with its bounds.
            places: fetches under way at once.
            timeout_s: the fetcher's own deadline.
        """
        self._fetcher, self._places, self._timeout_s = fetcher, places, timeout_s
        self._taken = 0
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(places, thread_name_prefix="fetch")

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings have it; the client's libraries load only here."""
        from serving.fetch.client import Fetcher, FetchLimits

        limits = FetchLimits(
            max_bytes=settings.max_file_bytes,
            deadline_s=settings.url_fetch_timeout_s,
            connect_s=settings.url_fetch_timeout_s,
            read_s=settings.url_fetch_timeout_s,
            # the caller waits: it is told at once what another try might cure, and tries again itself
            attempts=1,
            per_host=settings.url_fetch_places,
        )
        fetcher = Fetcher(limits, allowed=settings.fetch_hosts, trusted=settings.fetch_private_hosts)
        return cls(fetcher, settings.url_fetch_places, settings.url_fetch_timeout_s)

    async def get(self, url: str) -> bytes:
        """The photo behind an address.

        Raises:
            ProblemError: `overloaded`, or a reason that begins with `url_`.
        """
        with self._lock:
            if self._taken >= self._places:
                raise ProblemError("overloaded", f"{self._places} addresses are being fetched already; try again")
            self._taken += 1
        under_way = self._pool.submit(self._fetcher.get, url)
        under_way.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._timeout_s + _GRACE_S):
                return await asyncio.wrap_future(under_way)
        except TimeoutError as error:
            raise ProblemError("url_timeout", f"no answer within {self._timeout_s:g} s") from error
        except FetchRefusedError as error:
            raise ProblemError(url_reason(error.reason), str(error)) from error

    def close(self) -> None:
        """Begin no other fetch; those under way end by their deadline."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._fetcher.close()

    def _ended(self, _: "Future[Any]") -> None:
        with self._lock:
            self._taken -= 1
