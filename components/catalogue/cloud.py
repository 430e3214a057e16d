"""Catalogues and results in Cloud Storage: listed as a stream, read with a bound, written once by generation match."""

import fnmatch
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from components.catalogue.config import CatalogueConfig
from components.catalogue.destination import JOB_FILE, MOST_READ, PARTS, within
from components.catalogue.entries import FEEDS, PARQUET, Entry, entries_of
from components.platform.cloud_storage import fetch_file, read_object
from components.platform.google_cloud import google_errors
from serving.platform.cloud_storage import SCHEME, blob, client, retry, split
from serving.platform.errors import CatalogueError, SourceError

if TYPE_CHECKING:
    from google.cloud.storage import Blob

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

    def read(self, name: str, max_bytes: int = MOST_READ) -> bytes | None:
        """An object's content; None where it is not there.

        Raises:
            CatalogueError: it is larger than anything of ours.
        """
        content = read_object(f"{self.uri}/{name}", max_bytes + 1)
        return None if content is None else within(content, max_bytes, f"{self.uri}/{name}")

    def names(self, folder: str) -> set[str]:
        """Names of the objects in a folder."""
        prefix = f"{self._prefix}/{folder}/"
        with google_errors(f"list {self.uri}/{folder}"):
            found = client().list_blobs(self._bucket, prefix=prefix, retry=retry(_RETRY_S))
            return {one.name.removeprefix(prefix) for one in found}

    def new_folder(self, name: str) -> str:
        """A folder of a name that nobody has had: a bucket has no lock that would keep another job out."""
        return f"{name}/{uuid.uuid4().hex[:16]}"

    def commit(self, name: str, content: bytes, replace: bool = False) -> bool:
        """Write an object whole; on the condition that there is none yet, unless it may be replaced."""
        from google.api_core.exceptions import PreconditionFailed

        with google_errors(f"write {self.uri}/{name}"):
            new = self._blob(name)
            condition = {} if replace else {"if_generation_match": 0}
            try:
                new.upload_from_string(content, checksum="crc32c", retry=retry(_RETRY_S), **condition)
            except PreconditionFailed:
                # also met when an answer was lost and the client sent the same bytes again: then they are there
                return False
        return True

    def _blob(self, name: str) -> "Blob":
        return blob(f"{self.uri}/{name}")


def entries_in_cloud(source: str, config: CatalogueConfig, results: str = "") -> Iterator[Entry]:
    """Every photo of a `gs://` source: a feed or a Parquet of addresses, a pattern, or all objects under a prefix.

    Under a prefix, what is hidden and the results of earlier jobs are left out, as in a folder on a disk; so is what
    lies in `results`, which is written meanwhile.

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
        earlier = set() if pattern else _results_of_earlier_jobs(bucket, prefix)
        if results.startswith(f"{SCHEME}{bucket}/") and not pattern:
            earlier.add(f"{split(results)[1]}/")
        for one in client().list_blobs(bucket, prefix=prefix, retry=retry(_RETRY_S)):
            shown = one.name.removeprefix(prefix) if not pattern else one.name
            if one.name.endswith("/") or any(part.startswith(".") for part in shown.split("/")):
                continue
            if earlier and not earlier.isdisjoint(_folders(one.name)):
                continue
            if pattern and not fnmatch.fnmatchcase(one.name, pattern):
                continue
            count += 1
            uri = f"{SCHEME}{bucket}/{one.name}"
            if shown.endswith(PARQUET):
                yield from _of_table(uri, config)
            else:
                yield Entry(shown, uri, "gs", uri.encode())
    if not count:
        raise SourceError(f"{source}: no photos there")


def content_in_cloud(source: str) -> str:
    """Size and checksum of a feed or Parquet file; empty where the source is none, or is not there.

    Raises:
        StageError: Google refused.
    """
    bucket, name = split(source)
    if Path(name).suffix.lower() not in (*FEEDS, PARQUET):
        return ""
    with google_errors(f"read {source}"):
        found = client().bucket(bucket).get_blob(name, retry=retry(_RETRY_S))
    return f"{found.size} {found.crc32c}" if found is not None else ""


def _results_of_earlier_jobs(bucket: str, prefix: str) -> set[str]:
    """Folders below a prefix that hold a job and parts of its results, each with its last slash.

    Storage looks for the jobs: what is told of a catalogue without any is nothing, however large it is.
    """
    jobs = client().list_blobs(bucket, prefix=prefix, match_glob=f"**/{JOB_FILE}", retry=retry(_RETRY_S))
    folders = (one.name.removesuffix(JOB_FILE) for one in jobs if one.name.endswith(f"/{JOB_FILE}"))
    return {
        folder
        for folder in folders
        if folder != prefix
        and any(client().list_blobs(bucket, prefix=f"{folder}{PARTS}/", max_results=1, retry=retry(_RETRY_S)))
    }


def _folders(name: str) -> Iterator[str]:
    """Every folder that an object lies in, each with its last slash."""
    return (name[: at + 1] for at, character in enumerate(name) if character == "/")


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
