"""The append-only record of the runs that retraining started: a file of this machine, or an object all runners see."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from components.platform.cloud_storage import SCHEME, CloudLines
from serving.platform.errors import RetrainError

STARTING: Final = "starting"
NOT_STARTED: Final = "not_started"

Reason = Literal["drift", "age", "new_labels", "none"]


class Start(BaseModel):
    """One started run, a line of the record."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    at: float
    """Unix time."""
    reason: Reason
    explanation: str
    key: str
    """What it answered: the same drift of the same model version is answered once."""
    run_id: str = ""
    status: str

    def line(self) -> bytes:
        """JSON on one line, with its newline."""
        return self.model_dump_json().encode() + b"\n"


def open_history(path: str) -> "LocalHistory | CloudHistory":
    """The record at a local path or a `gs://` object."""
    return CloudHistory(path) if path.startswith(SCHEME) else LocalHistory(Path(path))


class LocalHistory:
    """A file; who decides holds a lock beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until nobody else decides.

        Raises:
            RetrainError: the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_suffix(".lock").open("w")
        except OSError as error:
            raise RetrainError(f"{self.path}: {error.strerror}; set retrain.state_path to a writable place") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def read(self) -> list[Start]:
        """Runs started before.

        Raises:
            RetrainError: the file cannot be read, or a line is not one of ours.
        """
        try:
            return parse(self.path.read_bytes(), str(self.path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RetrainError(f"{self.path}: {error.strerror}") from error

    def claim(self, start: Start) -> bool:
        """Add a line; the lock keeps others away."""
        self.append(start)
        return True

    def append(self, start: Start) -> None:
        """Add a line."""
        with self.path.open("ab") as file:
            file.write(start.line())


class CloudHistory:
    """An object in Cloud Storage, for runners that begin with an empty disk; of two writers the slower is refused."""

    def __init__(self, uri: str) -> None:
        self._lines = CloudLines(uri)
        self._content = b""

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nothing to hold: `claim` tells whether somebody else decided meanwhile."""
        yield

    def read(self) -> list[Start]:
        """Runs started before.

        Raises:
            RetrainError: a line is not one of ours.
            StageError: Google refused.
        """
        self._content = self._lines.read()
        return parse(self._content, self._lines.uri)

    def claim(self, start: Start) -> bool:
        """Add a line unless the object changed since `read`.

        Raises:
            StageError: Google refused.
        """
        return self._lines.append_unless_changed(self._content, start.line())

    def append(self, start: Start) -> None:
        """Add a line, again when another writer was quicker.

        Raises:
            StageError: Google refused.
        """
        self._lines.append(start.line())


def parse(content: bytes, where: str) -> list[Start]:
    """Runs that a record's lines tell of; of several lines about one start the last holds.

    Raises:
        RetrainError: a line is not one of ours.
    """
    found: dict[tuple[float, str], Start] = {}
    for number, line in enumerate(content.splitlines(), 1):
        try:
            begun = Start.model_validate_json(line)
        except ValueError as error:
            raise RetrainError(f"{where}:{number}: not a record of a started run; repair or move the file") from error
        found[begun.at, begun.key] = begun
    return [begun for begun in found.values() if begun.status != NOT_STARTED]
