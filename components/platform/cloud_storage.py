"""Cloud Storage as the stages use it: folders fetched and sent, files that grow by lines; all checked by crc32c."""

import base64
import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

from components.platform.google_cloud import google_errors
from serving.platform import jsonlines
from serving.platform.cloud_storage import PARALLEL, RETRY_S, SCHEME, blob, client, fetch, objects, read, retry, split
from serving.platform.errors import StageError
from serving.platform.jsonlines import LocalLines

_ATTEMPTS: Final = 5
_LINES_BYTES: Final = 256 * 1024 * 1024
LONGEST_LISTING: Final = 100_000
SEND_RETRY_S: float = 300.0
"""How long a file whose upload was cut off is tried again, where nobody says otherwise."""


@contextmanager
def on_disk(place: str, most_files: int = 0) -> Iterator[Path]:
    """A folder on this disk with what lies at `place`: the folder itself, or a copy of a `gs://` one while it is used.

    Args:
        place: folder or `gs://BUCKET/FOLDER`.
        most_files: a `gs://` folder of more objects is not copied; 0: of any number.

    Raises:
        StageError: there is nothing, too much, or it cannot be read.
    """
    if not place.startswith(SCHEME):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="aidetect-gs-") as scratch:
        fetch_folder(place, Path(scratch), most_files=most_files)
        yield Path(scratch)


def fetch_folder(uri: str, to: Path, timeout_s: float = RETRY_S, most_files: int = 0) -> None:
    """Copy every object under `uri` into the folder `to`; `most_files`: how many at most, 0: any number.

    Raises:
        StageError: there is nothing under it, more than that, or Google refused.
    """
    with google_errors(f"read {uri}"):
        found = list(islice(objects(uri, timeout_s), most_files + 1 if most_files else None))
        if not found:
            raise StageError(f"{uri}: no such folder")
        if 0 < most_files < len(found):
            raise StageError(f"{uri}: holds more than {most_files:,} files; take a sample of them")
        fetch(found, uri, to, timeout_s)


def holds(uri: str) -> bool:
    """Whether anything lies under `uri`.

    Raises:
        StageError: Google refused.
    """
    bucket, prefix = split(uri)
    with google_errors(f"read {uri}"):
        return any(True for _ in client().list_blobs(bucket, prefix=f"{prefix}/", max_results=1, retry=retry()))


def list_names(uri: str, start: str = "") -> list[str]:
    """Names of the objects of the folder `uri`, from `start` on, at most `LONGEST_LISTING`.

    Raises:
        StageError: Google refused.
    """
    bucket, prefix = split(uri)
    prefix = f"{prefix}/" if prefix else ""
    with google_errors(f"list {uri}"):
        found = client().list_blobs(
            bucket, prefix=prefix, start_offset=prefix + start, max_results=LONGEST_LISTING, retry=retry()
        )
        return [str(blob.name).removeprefix(prefix) for blob in found]


def read_object(uri: str, most_bytes: int) -> bytes | None:
    """At most that many bytes of an object; None where it is not there.

    Raises:
        StageError: Google refused.
    """
    with google_errors(f"read {uri}"):
        return read(blob(uri), most_bytes)


def fetch_file(uri: str, to: Path, timeout_s: float = RETRY_S) -> None:
    """Copy one object to the file `to`, whose folder is made; a copy that breaks off leaves no file.

    Raises:
        StageError: it is not there, or Google refused.
    """
    with google_errors(f"read {uri}"):
        to.parent.mkdir(parents=True, exist_ok=True)
        blob(uri).download_to_filename(str(to), checksum="crc32c", retry=retry(timeout_s))


def send_folder(folder: Path, uri: str, timeout_s: float = 0.0) -> None:
    """Send every file of `folder` to `uri`: all of them, or none that was not there before.

    Raises:
        StageError: Google refused or the network failed for longer than `timeout_s` (0: `SEND_RETRY_S`).
    """
    with ExitStack() as undo:
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        send_files(files, uri, timeout_s or SEND_RETRY_S, undo)
        undo.pop_all()


def send_files(files: Mapping[str, Path], uri: str, timeout_s: float, undo: ExitStack) -> None:
    """Send files to names under `uri`; those that are there with the same checksum are left alone.

    Args:
        files: name under `uri` -> file on this disk.
        uri: `gs://BUCKET/FOLDER`.
        timeout_s: how long a file whose upload was cut off is tried again.
        undo: receives what takes each new object back.

    Raises:
        StageError: Google refused or the network failed for longer than that.
    """
    name, prefix = split(uri)
    with google_errors(f"upload to {uri}"):
        target, again = client().bucket(name), retry(timeout_s)
        standing = {there.name: there.crc32c for there in target.list_blobs(prefix=f"{prefix}/", retry=again)}

        def send(relative: str) -> None:
            new = target.blob(f"{prefix}/{relative}")
            if standing.get(new.name) == _crc32c(files[relative]):
                return
            if new.name not in standing:
                undo.callback(_forget, new)
            # files of more than 8 MiB go up in a resumable session; the server's checksum must equal ours
            new.upload_from_filename(str(files[relative]), checksum="crc32c", retry=again, timeout=timeout_s)

        with ThreadPoolExecutor(PARALLEL) as pool:
            list(pool.map(send, sorted(files)))


class CloudLines:
    """`LocalLines` as an object: appended by rewriting it on the condition that nobody else did meanwhile."""

    def __init__(self, uri: str) -> None:
        """Name the object.

        Raises:
            StageError: not `gs://BUCKET/OBJECT`.
        """
        if not split(uri)[1]:
            raise StageError(f"{uri!r} must be gs://BUCKET/OBJECT")
        self.where = uri
        self._content, self._generation = b"", 0

    def check(self) -> None:
        """Raises StageError when the object cannot be read."""
        self._fetch()

    def read(self) -> Iterator[tuple[int, bytes]]:
        """As `LocalLines.read`.

        Raises:
            StageError: Google refused, or the object is larger than a record of lines ever is.
        """
        self._fetch()
        return jsonlines.split(self._content, self.where)

    def claim(self, line: bytes) -> bool:
        """Append to what was read last; False, and nothing written, when the object changed since.

        Raises:
            StageError: Google refused.
        """
        from google.api_core.exceptions import PreconditionFailed

        content = jsonlines.mended(self._content, self.where) + line + b"\n"
        with google_errors(f"write {self.where}"):
            try:
                blob(self.where).upload_from_string(
                    content,
                    "application/x-ndjson",
                    if_generation_match=self._generation,
                    checksum="crc32c",
                    retry=retry(),
                )
            except PreconditionFailed:
                # also met when an answer was lost and the client sent the same bytes again: then they are there
                self._fetch()
                return self._content == content
        return True

    def append(self, line: bytes) -> None:
        """Add one line, given without its newline; again when another writer was quicker.

        Raises:
            StageError: Google refused, or others won every time.
        """
        for _ in range(_ATTEMPTS):
            self._fetch()
            if self.claim(line):
                return
        raise StageError(f"{self.where}: other writers won {_ATTEMPTS} times; try again")

    @contextmanager
    def exclusive(self, wait_s: float, busy: str) -> Iterator[None]:
        """Nothing to hold: `claim` tells whether somebody else decided meanwhile."""
        del wait_s, busy
        yield

    def _fetch(self) -> None:
        from google.api_core.exceptions import NotFound

        with google_errors(f"read {self.where}"):
            there = blob(self.where)
            try:
                there.reload(retry=retry())
                if (there.size or 0) > _LINES_BYTES:
                    raise StageError(f"{self.where}: {there.size:,} bytes; a record has at most {_LINES_BYTES:,}")
                self._content = bytes(there.download_as_bytes(retry=retry()))
                self._generation = int(there.generation or 0)
            except NotFound:
                self._content, self._generation = b"", 0  # a write succeeds only if there still is none


def open_lines(place: str, setting: str) -> LocalLines | CloudLines:
    """JSON lines at a path of this disk or at a `gs://` object; `setting` says how to name another place."""
    return CloudLines(place) if place.startswith(SCHEME) else LocalLines(Path(place), setting)


def _forget(blob: Any) -> None:
    with contextlib.suppress(Exception):
        blob.delete()


def _crc32c(path: Path) -> str:
    import google_crc32c

    # the C library reads a bundle's few dozen MB at once faster than this code could feed it pieces
    return base64.b64encode(google_crc32c.value(path.read_bytes()).to_bytes(4, "big")).decode()
