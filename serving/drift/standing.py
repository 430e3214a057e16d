"""What the closed windows of a model version say together: is it drift, is it an alarm, and what moved."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from serving.drift.report import DriftAlert, DriftState, DriftSummary, SignalReport
from serving.drift.store import ClosedWindow

PERSISTENCE: Final = (2, 3)
"""An alarm stands while 2 of the last 3 windows moved."""


@dataclass(frozen=True)
class Standing:
    """A model version's windows, newest first, and the conclusions."""

    version: str
    windows: list[ClosedWindow]

    @property
    def newest(self) -> int:
        """Number of the newest window; 0 before the first."""
        return self.windows[0].id if self.windows else 0

    @cached_property
    def state(self) -> DriftState:
        """The state after the newest window."""
        return state_after(self.windows)

    @property
    def drift_detected(self) -> bool:
        """The newest window moved, or the alarm still stands."""
        return self.state in ("drift", "alarm")

    @cached_property
    def signals(self) -> dict[str, SignalReport]:
        """Every signal of the newest window."""
        return {name: SignalReport(**fields) for name, fields in self._result["signals"].items()}

    @property
    def drift_score(self) -> float:
        """Largest effect in the newest window, 0..1 (PSI apart)."""
        return max((signal.score for name, signal in self.signals.items() if name != "score_psi"), default=0.0)

    @property
    def diagnosis(self) -> str:
        """In words, what the window that speaks for the state looks like."""
        words: str = self._spoken["diagnosis"]
        return words

    @property
    def alerts(self) -> list[DriftAlert]:
        """What moved in the window that speaks for the state."""
        spoken = self._spoken
        return [
            DriftAlert(
                signal=name,
                severity="alarm" if self.state == "alarm" else "warning",
                message=f"{name} moved by {spoken['signals'][name]['score']:.3f}",
            )
            for name in spoken["moved"]
        ]

    def summary(self) -> DriftSummary:
        """The few words `/health` has on it."""
        return DriftSummary(state=self.state, drift_detected=self.drift_detected, drift_score=self.drift_score)

    @property
    def _result(self) -> dict[str, Any]:
        return self.windows[0].result if self.windows else {"moved": [], "diagnosis": "", "signals": {}}

    @property
    def _spoken(self) -> dict[str, Any]:
        if self.state != "alarm":
            return self._result
        # an alarm outlives one good window; its words are those of the window that moved
        return next((w.result for w in self.windows[: PERSISTENCE[1]] if w.drifted), self._result)


def state_after(newest_first: list[ClosedWindow]) -> DriftState:
    """The state that some windows leave behind."""
    if not newest_first:
        return "collecting"
    if sum(window.drifted for window in newest_first[: PERSISTENCE[1]]) >= PERSISTENCE[0]:
        return "alarm"
    return "drift" if newest_first[0].drifted else "ok"
