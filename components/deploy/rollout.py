"""What every target of a deployment can do: start a version without users, give it traffic, take it all back."""

from dataclasses import dataclass
from typing import Protocol

from components.deploy.smoke import Prober


@dataclass(frozen=True, slots=True)
class Started:
    """A version that runs and has no users yet."""

    prober: Prober
    """Reaches this version and no other."""
    answers_as: str
    """The version its answers must carry."""


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a version serves after its promotion."""

    url: str = ""
    pid: int | None = None


class Rollout(Protocol):
    """One version on its way into service at one target."""

    canary: bool
    """Whether traffic can be shared between versions here."""

    def start(self) -> Started:
        """Start the version without users."""

    def shift(self, percent: int) -> Prober:
        """Give it `percent` of users' traffic; returns a prober of the address that users have."""

    def finish(self) -> Serving:
        """Clean up after all traffic is on it."""

    def restore(self) -> None:
        """Traffic as it was before `start`, and what was started removed. Safe to call at any point."""
