"""What every target of a deployment can do: start a version without users, give it traffic, take it all back."""

from dataclasses import dataclass
from typing import Protocol

from components.artifacts.model_version import ModelVersion
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
    images: tuple[str, str]
    """Serving image before and of this version, known after `begin`; empty where the target names none."""

    def begin(self) -> str:
        """Read what serves now and change nothing; returns what `resume` needs, as JSON without secrets.

        Raises:
            StageError: the target is not there, or somebody else's trial is under way.
        """

    def resume(self, begun: str, serving: ModelVersion | None) -> None:
        """Take the place of a rollout that was cut short after `begin` returned `begun`, to `settle` or `restore` it.

        Args:
            begun: what its `begin` returned.
            serving: the champion now, whose settings the target is given back; None where there is none.
        """

    def start(self) -> Started:
        """Start the version without users."""

    def shift(self, percent: int) -> Prober:
        """Give it `percent` of users' traffic; returns a prober of the address that users have."""

    def finish(self) -> Serving:
        """The last step that can still fail the promotion."""

    def settle(self) -> None:
        """After the promotion is written down: remove what no longer serves. Does not raise."""

    def restore(self) -> None:
        """Traffic as it was at `begin`, and what was started removed. Safe to call at any point."""


def shrunk(split: dict[str, int], total: int) -> dict[str, int]:
    """The same split sharing `total` percent, in whole percents that add up."""
    shares = {key: share * total // 100 for key, share in split.items()}
    largest = max(split, key=lambda key: split[key])
    shares[largest] += total - sum(shares.values())
    return shares
