"""The promotion ledger: who put which version into service, when, why and instead of what. Lines are only added.

Every attempt is two lines: what is going to be done, before anything changes, and what came of it. An attempt without
its second line was cut short; the next command finds out how far it came (`promotion.Desk`).
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from components.artifacts.deployment import Target
from components.platform.cloud_storage import open_lines
from serving.platform.cloud_storage import SCHEME
from serving.platform.frozen import Frozen
from serving.platform.jsonlines import documents

Action = Literal["deploy", "promote", "rollback"]
Outcome = Literal["begun", "promoted", "rolled_back"]


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
    attempt: str = ""
    """The same in both lines of one attempt."""
    undo: str = ""
    """What the target needs to take a begun attempt back (`Rollout.begin`)."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What was in service: a version on a serving image (empty where the target names none)."""

    version: str
    image: str = ""


class History:
    """What the lines of one model say."""

    def __init__(self, lines: list[LedgerEntry], model: str) -> None:
        lines = [line for line in lines if line.model == model]
        closed = {line.attempt for line in lines if line.outcome != "begun"}
        self.unfinished = [line for line in lines if line.outcome == "begun" and line.attempt not in closed]
        """Attempts that were cut short, or are under way."""
        self.withdrawn: set[str] = set()
        """Versions that a rollback took out of service; only a promotion by number brings one back."""
        self._served: list[Standing] = []
        """What a rollback may go back to, and on top what serves."""
        for line in lines:
            if line.outcome == "promoted":
                self._promoted(line)

    def _promoted(self, line: LedgerEntry) -> None:
        before, now = Standing(line.from_version or "", line.from_image), Standing(line.to_version, line.to_image)
        if self._served and self._served[-1].version == before.version:
            self._served[-1] = before if before.image else self._served[-1]
        elif before.version:
            self._served.append(before)
        if line.action == "rollback":
            if now in self._served:
                del self._served[len(self._served) - self._served[::-1].index(now) :]
            if before.version not in ("", now.version):
                self.withdrawn.add(before.version)
        else:
            self.withdrawn.discard(now.version)
        if not self._served or self._served[-1] != now:
            self._served.append(now)

    @property
    def image(self) -> str:
        """Serving image that was promoted last; empty where the target names none."""
        return self._served[-1].image if self._served else ""

    @property
    def served(self) -> set[str]:
        """Versions that serve, or did and were not rolled back."""
        return {standing.version for standing in self._served}

    def before(self, champion: str) -> Standing | None:
        """What a rollback of `champion` goes back to; None where nothing that may serve came before it."""
        at = max((i for i, served in enumerate(self._served) if served.version == champion), default=0)
        earlier = (s for s in reversed(self._served[:at]) if s != self._served[at])
        return next((s for s in earlier if s.version not in self.withdrawn), None)


class Ledger:
    """The promotions at a local path or a `gs://` object."""

    def __init__(self, place: str) -> None:
        self.held = not place.startswith(SCHEME)
        """Whether `exclusive` keeps everybody else out."""
        self._lines = open_lines(place, "set deploy.ledger_path")
        self.check = self._lines.check
        """Raises StageError when a line could not be added."""

    def append(self, entry: LedgerEntry) -> None:
        """Add one line; it is kept when this returns."""
        self._lines.append(entry.model_dump_json().encode())

    def lines(self) -> list[LedgerEntry]:
        """All lines, oldest first; a line that cannot be read is reported to the log and passed over."""
        return list(documents(self._lines.read(), LedgerEntry, self._lines.where))

    def entries(self) -> list[LedgerEntry]:
        """What came of the attempts, oldest first."""
        return [line for line in self.lines() if line.outcome != "begun"]

    def exclusive(self, wait_s: float) -> AbstractContextManager[None]:
        """Hold the ledger for one promotion, so that two cannot move the champion at once.

        In the cloud nothing is held: its own preconditions (etags) keep two rollouts apart.

        Raises:
            StageError: another promotion is under way and did not end within `wait_s`.
        """
        return self._lines.exclusive(wait_s, "another promotion is under way")
