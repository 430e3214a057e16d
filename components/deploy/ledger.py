"""The promotion ledger: who put which version into service, when, why and instead of what. Lines are only added."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.artifacts.deployment import Target
from components.platform.cloud_storage import SCHEME, CloudLines
from serving.platform.errors import StageError

Action = Literal["deploy", "promote", "rollback"]
Outcome = Literal["promoted", "rolled_back"]

_log = logging.getLogger(__name__)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class LedgerEntry(BaseModel):
    """One line."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = 1
    at: str = Field(default_factory=_now)
    """UTC, ISO 8601."""
    who: str
    action: Action
    why: str
    target: Target
    model: str
    from_version: str | None
    to_version: str
    from_image: str = ""
    """Serving image before, where the target runs one by name (Cloud Run)."""
    to_image: str = ""
    bundle_digest: str
    verdict: str
    """The gate's one-line verdict of `to_version`."""
    outcome: Outcome
    reason: str = ""
    """Why it was rolled back."""
    run_id: str = ""

    def line(self) -> bytes:
        """JSON on one line, with its newline."""
        return self.model_dump_json().encode() + b"\n"


def open_ledger(path: str) -> "LocalLedger | GcsLedger":
    """The ledger at a local path or a `gs://` object."""
    return GcsLedger(path) if path.startswith(SCHEME) else LocalLedger(Path(path))


def undone_by_rollback(entries: list[LedgerEntry], champion: str) -> LedgerEntry | None:
    """The promotion that a rollback takes back: the latest that brought in `champion`, or an image for it."""
    for entry in reversed(entries):
        moved = (entry.from_version, entry.from_image) != (entry.to_version, entry.to_image)
        if entry.outcome == "promoted" and moved and entry.to_version == champion:
            return entry
    return None


class LocalLedger:
    """A file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self) -> None:
        """Raise StageError when a line could not be added."""
        with self._open():
            pass

    def append(self, entry: LedgerEntry) -> None:
        """Add one line in one write and flush it to the disk."""
        with self._open() as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            end = os.fstat(descriptor).st_size
            # a machine that died while writing may have left half a line: it must not swallow this one
            torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
            data = b"\n" * torn + entry.line()
            if os.write(descriptor, data) != len(data):
                raise StageError(f"{self.path}: the promotion could not be written whole; is the disk full?")
            os.fsync(descriptor)

    def entries(self) -> list[LedgerEntry]:
        """All lines, oldest first; a line that cannot be read is reported to the log and passed over."""
        if not self.path.is_file():
            return []
        return parse(self.path.read_bytes(), str(self.path))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the ledger for one promotion, so that two cannot move the champion at once.

        Raises:
            StageError: another promotion is under way.
        """
        lock = self.path.with_name(f".{self.path.name}.lock")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StageError(f"another promotion is under way ({lock} is held); wait for it to end") from error
            yield

    @contextmanager
    def _open(self) -> Iterator[int]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise StageError(f"promotion ledger {self.path}: {error.strerror}; set deploy.ledger_path") from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)


class GcsLedger:
    """An object of JSON lines in Cloud Storage."""

    def __init__(self, uri: str) -> None:
        self._lines = CloudLines(uri)

    def check(self) -> None:
        """Raise StageError when the object cannot be read."""
        self._lines.read()

    def append(self, entry: LedgerEntry) -> None:
        """Add one line; tried again when another writer was quicker."""
        self._lines.append(entry.line())

    def entries(self) -> list[LedgerEntry]:
        """All lines, oldest first."""
        return parse(self._lines.read(), self._lines.uri)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nothing to hold: the cloud's own preconditions (etags) keep two rollouts apart."""
        yield


def parse(content: bytes, where: str) -> list[LedgerEntry]:
    """Entries of a ledger's bytes."""
    entries = []
    for number, line in enumerate(content.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entries.append(LedgerEntry.model_validate_json(line))
        except ValidationError:
            _log.warning("%s: line %d is no promotion record; passed over", where, number)
    return entries
