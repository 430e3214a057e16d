"""Recurring runs as every target with a clock keeps them."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Wanted:
    """What the configuration asks for."""

    name: str
    cron: str
    time_zone: str
    max_concurrent_runs: int
    spec: dict[str, Any]
    parameters: dict[str, Any]
    git_sha: str
    """Commit that they were made from."""
    digest: str
    """Of spec, parameters and everything else that decides what a run does."""


@dataclass(frozen=True)
class Standing:
    """One schedule as the cloud shows it."""

    resource: str
    state: Literal["active", "paused", "completed"]
    cron: str
    """As the target writes it, with the time zone where it has one."""
    max_concurrent_runs: int
    digest: str
    created_at: str
    """ISO 8601; sorts by age."""
    next_run_at: str = ""


class Scheduler(Protocol):
    """The schedules of one name at one target."""

    def written(self, wanted: Wanted) -> str:
        """The cron as this target writes it.

        Raises:
            ScheduleError: the target cannot keep this time zone.
        """
        ...

    def find(self) -> list[Standing]:
        """Those that stand under the name."""
        ...

    def create(self, wanted: Wanted) -> None:
        """Make one, active."""
        ...

    def update(self, resource: str, wanted: Wanted) -> None:
        """Make one be as wanted."""
        ...

    def pause(self, resource: str) -> None:
        """Stop it from starting runs."""
        ...

    def resume(self, resource: str) -> None:
        """Let it start runs again; none is made up for."""
        ...

    def delete(self, resource: str) -> None:
        """Remove it; runs that it started go on."""
        ...

    def identity(self) -> dict[str, Any]:
        """What else of the configuration decides what a run does: with it the schedule changes."""
        ...
