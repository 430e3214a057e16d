"""What the instances of a service tell each other and the next training: objects in a bucket, only added and read.

EVIDENCE_URI=gs://BUCKET[/FOLDER] has `labels/` (true labels that users gave), `drift/VERSION/` (closed windows), and
`answers/`, `given/` (what a label is joined to, whatever instance it reaches).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from serving.platform import cloud_storage
from serving.platform.errors import StageError, StateError, one_line
from serving.platform.grants import remedy

_TIMEOUT_S: Final = 10.0
_LONGEST_LISTING: Final = 5_000
_OBJECT_BYTES: Final = 262_144


class Evidence:
    """A folder of a bucket; each method may be called from any thread, and blocks."""

    def __init__(self, uri: str) -> None:
        """Name the folder; nothing is asked of it yet."""
        self.uri = uri
        self._bucket, folder = cloud_storage.split(uri)
        self._prefix = f"{folder}/" if folder else ""

    def add(self, name: str, content: bytes) -> None:
        """Add an object; one of that name is there already: it stays, and is what an earlier try wrote.

        Raises:
            StateError: Google refused or does not answer.
        """
        from google.api_core.exceptions import Forbidden, PreconditionFailed

        with self._told(f"add {name}"):
            try:
                self._blob(name).upload_from_string(
                    content, "application/json", if_generation_match=0, checksum="crc32c", timeout=_TIMEOUT_S
                )
            except PreconditionFailed:
                return
            except Forbidden as error:
                # asked for only where it would take the place of another object, which a writer of evidence may not
                if "storage.objects.delete" not in str(error):
                    raise

    def names(self, folder: str, start: str = "", most: int = _LONGEST_LISTING) -> list[str]:
        """Names in a folder from `start` on, in their order, at most `most`.

        Raises:
            StateError: Google refused or does not answer.
        """
        prefix = f"{self._prefix}{folder}/"
        with self._told(f"list {folder}"):
            found = cloud_storage.client().list_blobs(
                self._bucket,
                prefix=prefix,
                start_offset=prefix + start if start else None,
                max_results=most,
                timeout=_TIMEOUT_S,
            )
            return [str(blob.name).removeprefix(prefix) for blob in found]

    def read(self, name: str) -> bytes:
        """An object's content, of which no more than 256 KiB are read; nothing where it is not there any more.

        Raises:
            StateError: Google does not answer.
        """
        with self._told(f"read {name}"):
            return cloud_storage.read(self._blob(name), _OBJECT_BYTES, _TIMEOUT_S) or b""

    def _blob(self, name: str) -> Any:
        return cloud_storage.client().bucket(self._bucket).blob(self._prefix + name)

    @contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        try:
            yield
        except (GoogleAPIError, GoogleAuthError, OSError, StageError) as error:
            said = one_line(error)
            fix = remedy(said)
            raise StateError(
                f"EVIDENCE_URI={self.uri}: cannot {doing}: {said}" + (f"; {fix}" if fix else "")
            ) from error
