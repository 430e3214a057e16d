"""Catalogues and results in Cloud Storage: listed as a stream, read with a bound, written once by generation match."""

import fnmatch
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from components.catalogue.config import CatalogueConfig
from components.catalogue.entries import FEEDS, GS, PARQUET, Entry, entries_of
from components.platform.cloud_storage import fetch_file, split
from components.platform.google_cloud import google_errors
from serving.platform.errors import CatalogueError, SourceError

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

_RETRY_S: Final = 120.0


class CloudDestination:
    """A prefix in a bucket."""

    def __init__(self, uri: str) -> None:
        """Name the prefix.

        Raises:
            StageError: not `gs://BUCKET/PREFIX`.
        """
        self._bucket, self._prefix = split(uri)
        if not self._prefix:
            raise CatalogueError(f"{uri}: name a folder in the bucket, gs://{self._bucket}/RESULTS")
        self.uri = uri.rstrip("/")

    def read(self, name: str) -> bytes | None:
        """An object's content; None where it is not there."""
        from google.api_core.exceptions import NotFound

        with google_errors(f"read {self.uri}/{name}"):
            try:
                return bytes(self._blob(name).download_as_bytes(retry=_retry()))
            except NotFound:
                return None

    def names(self, folder: str) -> set[str]:
        """Names of the objects in a folder."""
        prefix = f"{self._prefix}/{folder}/"
        with google_errors(f"list {self.uri}/{folder}"):
            found = _client().list_blobs(self._bucket, prefix=prefix, retry=_retry())
            return {blob.name.removeprefix(prefix) for blob in found}

    def commit(self, name: str, content: bytes, replace: bool = False) -> bool:
        """Write an object whole; on the condition that there is none yet, unless it may be replaced."""
        from google.api_core.exceptions import PreconditionFailed

        with google_errors(f"write {self.uri}/{name}"):
            blob = self._blob(name)
            condition = {} if replace else {"if_generation_match": 0}
            try:
                blob.upload_from_string(content, checksum="crc32c", retry=_retry(), **condition)
            except PreconditionFailed:
                # also met when an answer was lost and the client sent the same bytes again: then they are there
                return False
        return True

    def _blob(self, name: str) -> "Blob":
        return _client().bucket(self._bucket).blob(f"{self._prefix}/{name}")


def entries_in_cloud(source: str, config: CatalogueConfig) -> Iterator[Entry]:
    """Every photo of a `gs://` source: a feed or a Parquet of addresses, a pattern, or all objects under a prefix.

    Raises:
        SourceError: nothing there.
        StageError: Google refused.
    """
    bucket, name = split(source)
    if Path(name).suffix.lower() in (*FEEDS, PARQUET):
        yield from _of_table(source, config)
        return
    pattern = name if any(c in name for c in "*?[") else ""
    prefix = pattern[: min(pattern.find(c) for c in "*?[" if c in pattern)] if pattern else f"{name}/" if name else ""
    count = 0
    with google_errors(f"list {source}"):
        for blob in _client().list_blobs(bucket, prefix=prefix, retry=_retry()):
            shown = blob.name.removeprefix(prefix) if not pattern else blob.name
            if blob.name.endswith("/") or any(part.startswith(".") for part in shown.split("/")):
                continue
            if pattern and not fnmatch.fnmatchcase(blob.name, pattern):
                continue
            count += 1
            uri = f"{GS}{bucket}/{blob.name}"
            if shown.endswith(PARQUET):
                yield from _of_table(uri, config)
            else:
                yield Entry(shown, uri, "gs", uri.encode())
    if not count:
        raise SourceError(f"{source}: no photos there")


def _of_table(uri: str, config: CatalogueConfig) -> Iterator[Entry]:
    with tempfile.TemporaryDirectory(prefix="aidetect-feed-") as scratch:
        table = Path(scratch) / Path(uri).name
        fetch_file(uri, table)
        # paths of a feed in a bucket are names in that bucket, beside the feed
        for entry in entries_of(str(table), config):
            yield _beside(entry, uri)


def _beside(entry: Entry, table: str) -> Entry:
    if entry.kind == "row":
        return Entry(entry.id, entry.uri, "row", table.encode(), entry.row)
    if entry.kind != "path":
        return entry
    uri = f"{table.rpartition('/')[0]}/{entry.uri.lstrip('/')}"
    return Entry(entry.id, uri, "gs", uri.encode() if entry.place else b"")


def read_object(uri: str, max_bytes: int) -> bytes | None:
    """At most `max_bytes` of an object; None where it is not there.

    Raises:
        StageError: Google refused.
    """
    from google.api_core.exceptions import NotFound, RequestRangeNotSatisfiable

    bucket, name = split(uri)
    with google_errors(f"read {uri}"):
        try:
            return bytes(_client().bucket(bucket).blob(name).download_as_bytes(end=max_bytes - 1, retry=_retry()))
        except NotFound:
            return None
        except RequestRangeNotSatisfiable:
            return b""


_clients: dict[str, Any] = {}


def _client() -> "Client":
    """One client a process: each makes its own pool of connections and asks for its own token."""
    if "storage" not in _clients:
        from google.cloud import storage

        _clients["storage"] = storage.Client()
    client: Client = _clients["storage"]
    return client


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(_RETRY_S)
