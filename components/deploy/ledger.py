"""The promotion ledger: who put which version into service, when, why and instead of what. Lines are only added."""

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import Field

from components.artifacts.deployment import Target
from components.platform.cloud_storage import open_lines
from serving.platform.frozen import Frozen
from serving.platform.jsonlines import documents

Action = Literal["deploy", "promote", "rollback"]
Outcome = Literal["promoted", "rolled_back"]

_WAIT_S: Final = 0.0
"""How long a promotion waits for another to end."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class LedgerEntry(Frozen):
    """One line."""

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


def undone_by_rollback(entries: list[LedgerEntry], champion: str) -> LedgerEntry | None:
    """The promotion that a rollback takes back: the latest that brought in `champion`, or an image for it."""
    for entry in reversed(entries):
        moved = (entry.from_version, entry.from_image) != (entry.to_version, entry.to_image)
        if entry.outcome == "promoted" and moved and entry.to_version == champion:
            return entry
    return None


class Ledger:
    """The promotions at a local path or a `gs://` object."""

    def __init__(self, place: str) -> None:
        self._lines = open_lines(place, "set deploy.ledger_path")
        self.check = self._lines.check
        """Raises StageError when a line could not be added."""

    def append(self, entry: LedgerEntry) -> None:
        """Add one line; it is kept when this returns."""
        self._lines.append(entry.model_dump_json().encode())

    def entries(self) -> list[LedgerEntry]:
        """All lines, oldest first; a line that cannot be read is reported to the log and passed over."""
        return list(documents(self._lines.read(), LedgerEntry, self._lines.where))

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the ledger for one promotion, so that two cannot move the champion at once.

        In the cloud nothing is held: its own preconditions (etags) keep two rollouts apart.

        Raises:
            StageError: another promotion is under way.
        """
        return self._lines.exclusive(_WAIT_S, "another promotion is under way")
