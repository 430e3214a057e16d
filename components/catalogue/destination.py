"""Where a job's results lie: a folder or a `gs://` prefix; a file appears whole or not at all, and never changes."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from serving.platform.errors import CatalogueError


class Destination(Protocol):
    """Files by name, each written once."""

    uri: str

    def read(self, name: str) -> bytes | None:
        """A file's content; None where it is not there."""
        ...

    def names(self, folder: str) -> set[str]:
        """Names of the files in a folder, without the folder's own; a folder that is not there is empty."""
        ...

    def commit(self, name: str, content: bytes, replace: bool = False) -> bool:
        """Write a file whole; False, and nothing written, where it is there already and must not be replaced."""
        ...


class LocalDestination:
    """A folder on this disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = str(folder)

    def read(self, name: str) -> bytes | None:
        """A file's content."""
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> set[str]:
        """Names of the finished files in a folder."""
        try:
            return {path.name for path in (self.folder / folder).iterdir() if not path.name.startswith(".")}
        except FileNotFoundError:
            return set()

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
