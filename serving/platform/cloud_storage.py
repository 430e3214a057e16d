"""Cloud Storage for both floors: one client a process, addresses taken apart, folders fetched, bounded reads.

Raises what Google's client raises; who calls says what that means to him (`components.platform.cloud_storage` for
stages, `serving.registry` for a server).
"""

import base64
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving.platform.errors import StageError
from serving.platform.google_identity import LOGIN
from serving.platform.settings import of_google_clients

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

SCHEME: Final = "gs://"
RETRY_S: Final = 60.0
"""How long a call that failed on its way is tried again."""
PARALLEL: Final = 8
MOST_FILES: Final = 1_000
MOST_BYTES: Final = 4 * 2**30
"""A model's folder has a few dozen files and, as ONNX files end at 2 GiB, fewer bytes than this."""


def split(uri: str) -> tuple[str, str]:
    """Bucket and object name (or prefix, without slashes around it) of a `gs://` address.

    Raises:
        StageError: no bucket in it.
    """
    bucket, _, name = uri.removeprefix(SCHEME).partition("/")
    if not uri.startswith(SCHEME) or not bucket:
        raise StageError(f"{uri!r} must be gs://BUCKET/PATH")
    return bucket, name.strip("/")


def client() -> "Client":
    """This process's client, with credentials as google-cloud-storage finds them.

    Each client makes its own pool of connections and asks for its own token; a forked child may not share them.
    """
    key = (os.getpid(), *of_google_clients())
    if key not in _clients:
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud import storage

        _clients.clear()
        try:
            _clients[key] = storage.Client()
        except DefaultCredentialsError as error:
            # Google's words are an address to read at
            raise DefaultCredentialsError(  # type: ignore[no-untyped-call] # google-auth is untyped here
                f"no Google credentials; run: {LOGIN}"
            ) from error
    found: Client = _clients[key]
    return found


_clients: dict[tuple[object, ...], Any] = {}


def retry(timeout_s: float = RETRY_S) -> Any:
    """Google's policy of trying again, for so long."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(timeout_s)


def blob(uri: str) -> "Blob":
    """The object of that address, not asked for yet."""
    bucket, name = split(uri)
    return client().bucket(bucket).blob(name)


def objects(uri: str, timeout_s: float = RETRY_S) -> "Iterator[Blob]":
    """Every object under the folder `uri`, as a stream; the markers that stand for empty folders are left out."""
    bucket, prefix = split(uri)
    for found in client().list_blobs(bucket, prefix=f"{prefix}/" if prefix else "", retry=retry(timeout_s)):
        if not found.name.endswith("/"):
            yield found


def bundle_objects(uri: str) -> "list[Blob]":
    """The objects of a folder that should hold a model; the listing stops where it is none.

    Raises:
        StageError: more files or bytes than any bundle has.
    """
    found, size = [], 0
    for blob in objects(uri):
        found.append(blob)
        size += blob.size or 0
        refuse_more_than_a_model(len(found), size)
    return found


def refuse_more_than_a_model(files: int, size: int) -> None:
    """Refuse a folder of so many files and bytes before any of it is downloaded.

    Raises:
        StageError: no model has as many.
    """
    if files > MOST_FILES or size > MOST_BYTES:
        raise StageError(
            f"it holds more than a model does (at most {MOST_FILES:,} files and {MOST_BYTES >> 30} GiB in all); "
            "name the folder of one bundle"
        )


def fetch(found: "Iterable[Blob]", uri: str, to: Path, timeout_s: float = RETRY_S) -> None:
    """Copy objects of the folder `uri` into the folder `to`, several at once, each checked by its crc32c.

    Raises:
        StageError: an object's name leads out of the folder.
    """
    prefix = f"{split(uri)[1]}/".lstrip("/")

    def one(source: "Blob") -> None:
        target = to / source.name.removeprefix(prefix)
        if not target.resolve().is_relative_to(to.resolve()):
            raise StageError(f"{uri}: the object {source.name!r} would be written outside of its folder; rename it")
        target.parent.mkdir(parents=True, exist_ok=True)
        source.download_to_filename(str(target), checksum="crc32c", retry=retry(timeout_s))

    with ThreadPoolExecutor(PARALLEL) as pool:
        list(pool.map(one, found))


def read(source: "Blob", most_bytes: int, timeout_s: float = RETRY_S) -> bytes | None:
    """At most that many bytes of an object; None where it is not there.

    Raises:
        StageError: the whole of it was read, and its crc32c is not the one that Google keeps.
    """
    import google_crc32c
    from google.api_core.exceptions import NotFound, RequestRangeNotSatisfiable

    try:
        content = bytes(source.download_as_bytes(end=most_bytes - 1, retry=retry(timeout_s)))
        # the client compares no checksum of an answer to a range, but keeps the object's
        if len(content) < most_bytes and source.crc32c:
            found = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
            if found != source.crc32c:
                raise StageError(f"{SCHEME}{source.bucket.name}/{source.name}: crc32c does not match; read it again")
        return content
    except NotFound:
        return None
    except RequestRangeNotSatisfiable:
        return b""  # an empty object has no first byte
