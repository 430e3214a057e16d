"""Where a job's results lie: a folder or a `gs://` prefix; a file appears whole or not at all, and never changes."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

from serving.platform.errors import CatalogueError

JOB_FILE: Final = "job.json"
PARTS: Final = "parts"
PLAN: Final = "plan"
"""What the results' folder of a job has from its beginning, from its first part on, and before either."""
MOST_READ: Final = 2**30
"""Bytes of a plan or part: a group of 6.4 million photos, the largest that can be configured."""


class Destination(Protocol):
    """Files by name, each written once."""

    uri: str

    def read(self, name: str, max_bytes: int = MOST_READ) -> bytes | None:
        """A file's content; None where it is not there.

        Raises:
            CatalogueError: it is larger than anything of ours.
        """
        ...

    def names(self, folder: str) -> set[str]:
        """Names of the files in a folder, without the folder's own; a folder that is not there is empty."""
        ...

    def new_folder(self, name: str) -> str:
        """A folder, called so or below one that is, into which no other process writes."""
        ...

    def commit(self, name: str, content: bytes, replace: bool = False) -> bool:
        """Write a file whole; False, and nothing written, where it is there already and must not be replaced."""
        ...


def within(content: bytes, max_bytes: int, name: str) -> bytes:
    """Content that was read with one byte more than allowed.

    Raises:
        CatalogueError: the byte is there.
    """
    if len(content) > max_bytes:
        raise CatalogueError(f"{name}: larger than {max_bytes:,} bytes: not a file of `aidetect score`")
    return content


class LocalDestination:
    """A folder on this disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = str(folder)

    def read(self, name: str, max_bytes: int = MOST_READ) -> bytes | None:
        """A file's content."""
        try:
            with (self.folder / name).open("rb") as handle:
                # a file is rarely as large as it may be, and Python takes the room that it is asked to fill
                room = min(max_bytes, os.fstat(handle.fileno()).st_size) + 1
                return within(handle.read(room), max_bytes, f"{self.uri}/{name}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CatalogueError(f"{self.uri}/{name}: cannot be read ({error.strerror})") from error

    def names(self, folder: str) -> set[str]:
        """Names of the finished files in a folder."""
        try:
            return {path.name for path in (self.folder / folder).iterdir() if not path.name.startswith(".")}
        except FileNotFoundError:
            return set()

    def new_folder(self, name: str) -> str:
        """The folder of this name: `alone` keeps others out."""
        return name

    def commit(self, name: str, content: bytes, replace: bool = False) -> bool:
        """Write to a name of this process's own, force it to the disk, then give it its name in one step."""
        final = self.folder / name
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = final.with_name(f".{final.name}.{uuid.uuid4().hex}.partial")
        try:
            with partial.open("xb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            if replace:
                partial.replace(final)
                return True
            try:
                os.link(partial, final)
            except FileExistsError:
                return False
            return True
        finally:
            partial.unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for this job.

        Raises:
            CatalogueError: another process works on it.
        """
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise CatalogueError(f"{self.folder}: another job is scoring into it; wait, or name another") from error
            yield
