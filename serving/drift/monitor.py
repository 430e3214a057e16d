"""The drift monitor: an append on the request path, everything else on its own thread."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog

from serving.detector.decision import CONFIDENCES, DecisionRule, Verdict
from serving.detector.labels import LABELS
from serving.detector.statistics import InputQuality, Reference
from serving.drift.diagnosis import diagnose
from serving.drift.report import ALERT_LEVELS, DriftReport, DriftSummary, SignalReport
from serving.drift.shared import SharedWindows
from serving.drift.signals import SIGNALS, Baseline, Floors
from serving.drift.standing import PERSISTENCE, Standing, state_after
from serving.drift.store import KEPT_WINDOWS, DriftStore, Observation, OnTrouble, Rows, format_id
from serving.settings import Settings
from serving.telemetry.metrics import Telemetry

log = structlog.get_logger(__name__)

_PREDICTION_ID: Final = {name: i for i, name in enumerate(LABELS)}
_CONFIDENCE_ID: Final = {name: i for i, name in enumerate(CONFIDENCES)}


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """When a window is closed and what it takes to call it moved."""

    window: int = 1000
    min_n: int = 200
    max_age_s: float = 24 * 3600.0
    """A window this old is closed with what it has, once that is `min_n`."""
    alpha: float = 0.001
    """Chance that a healthy window is called moved, over all signals together."""
    floors: Floors = field(default_factory=Floors)
    flush_s: float = 0.5

    @classmethod
    def of(cls, settings: Settings) -> "DriftPolicy":
        """The policy the environment asks for."""
        return cls(
            window=settings.drift_window,
            min_n=min(settings.drift_min_n, settings.drift_window),
            max_age_s=settings.drift_max_age_s,
            alpha=settings.drift_alpha,
            floors=Floors(settings.drift_min_effect, settings.drift_min_psi),
        )


Listener = Callable[[Standing], None]


class DriftMonitor:
    """Watches the served model version. `observe` costs a microsecond; tests run when a window is full."""

    def __init__(
        self,
        policy: DriftPolicy,
        path: Path | None = None,
        listener: Listener | None = None,
        on_trouble: OnTrouble = lambda _kind, _n: None,
        shared: SharedWindows | None = None,
    ) -> None:
        """Open the state.

        Args:
            policy: window, level and floors.
            path: SQLite file shared by all workers of this server and kept over restarts; None: memory.
            listener: told where the served model stands whenever that changed, on the thread that found it (the
                gauges hang here).
            on_trouble: told of observations that were not written or dropped, and of a damaged file.
            shared: the windows of the service's other instances; None: this one speaks for itself.

        Raises:
            StateError: the path cannot be used.
        """
        self.policy = policy
        self._store = DriftStore(path, policy.window, 10 * policy.window, on_trouble)
        self._listener = listener
        self._shared = shared
        self._served: tuple[str, Baseline] | None = None
        self._known: tuple[str, int] | None = None
        self._standing: Standing | None = None
        self._report: DriftReport | None = None
        self._work = threading.Lock()

    def serve(self, version: str, reference: Reference, rule: DecisionRule) -> None:
        """Watch another model version from now on; its windows continue where they were left."""
        self._served = (version, Baseline(reference, rule))
        self.refresh()

    def observe(self, verdict: Verdict, logit: float, quality: InputQuality, version: str) -> None:
        """Remember one prediction; O(1), no lock, no I/O."""
        self._store.recorder.put(
            Observation(
                version,
                time.time(),
                float(logit),
                verdict.probability,
                _PREDICTION_ID[verdict.prediction],
                _CONFIDENCE_ID[verdict.confidence],
                quality.log2_min_side,
                quality.log2_megapixels,
                quality.log2_aspect,
                quality.jpeg_quality,
                format_id(quality.format),
            )
        )

    def start(self) -> None:
        """Start the thread that stores observations and closes windows."""
        self._store.recorder.start("drift", self.policy.flush_s, self.refresh)

    def close(self) -> None:
        """Store what is buffered and stop; call after the last prediction."""
        if self._shared is not None and self._served is not None:
            with self._at_work():
                self._store.recorder.flush()
                # whoever takes this instance's place finds nothing of a window that is left open here
                self._close_window(*self._served, max_age_s=0.0)
        self.refresh()
        self._store.recorder.close()

    def report(self) -> DriftReport | None:
        """Drift now, with this process's buffer included; None before a model is served. Milliseconds: off the loop."""
        self.refresh()
        with self._at_work():
            if self._served is not None and self._standing is not None:
                self._report = self._compose(self._standing, self._served[1])
        return self._report

    def summary(self) -> DriftSummary | None:
        """The last refreshed state (at most `flush_s` old); costs nothing."""
        standing = self._standing
        return None if standing is None else standing.summary()

    def refresh(self) -> None:
        """Store the buffer, close full windows, tell the listener what they changed."""
        with self._at_work():
            self._store.recorder.flush()
            served = self._served
            if served is None:
                return
            while self._close_window(*served):
                pass
            version, _ = served
            # another worker may have closed a window, too
            self._conclude(version, self._store.newest_window(version))
            if self._shared is not None and self._shared.listen(version):
                self._known = None
                self._conclude(version, self._store.newest_window(version))

    def _conclude(self, version: str, newest: int) -> None:
        """Say where the version stands, if that may have changed since it was said."""
        if self._known == (version, newest):
            return
        own = self._store.windows(version, KEPT_WINDOWS)
        self._standing = Standing(version, own if self._shared is None else self._shared.worst(own))
        self._known = version, newest
        if self._listener is not None:
            self._listener(self._standing)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """One thread at a time; trouble with the state is told, never raised."""
        with self._work, self._store.recorder.trouble_told():
            yield

    def _close_window(self, version: str, baseline: Baseline, max_age_s: float | None = None) -> bool:
        closed = self._store.close_window(
            version,
            self.policy.window,
            self.policy.min_n,
            self.policy.max_age_s if max_age_s is None else max_age_s,
            lambda rows: self._judge(baseline, rows),
        )
        if closed is None:
            return False
        if self._shared is not None:
            self._shared.tell(version, closed)
        newest = self._store.windows(version, PERSISTENCE[1] + 1)
        now, before = state_after(newest), state_after(newest[1:])
        event = {"model_version": version, "n": closed.n, "state": now, "diagnosis": closed.result["diagnosis"]}
        if now != before:
            tell_of = log.warning if ALERT_LEVELS[now] > ALERT_LEVELS[before] else log.info
            tell_of("drift_state_changed", previous=before, moved=closed.result["moved"], **event)
        else:
            log.info("drift_window_closed", **event)
        return True

    def _judge(self, baseline: Baseline, rows: Rows) -> tuple[bool, dict[str, Any]]:
        window = rows.window()
        assessment = baseline.assess(window)
        flags = assessment.moved(self.policy.alpha, self.policy.floors)[0]
        moved = [name for name, flag in zip(SIGNALS, flags, strict=True) if flag]
        signals = {
            name: SignalReport(
                score=float(assessment.distances[0, i]),
                p_value=_number(assessment.p_values[0, i]),
                adjusted_p_value=_number(assessment.adjusted[0, i]),
                drifted=bool(flags[i]),
            ).model_dump()
            for i, name in enumerate(SIGNALS)
        }
        return bool(moved), {"moved": moved, "diagnosis": diagnose(moved, baseline, window), "signals": signals}

    def _compose(self, standing: Standing, baseline: Baseline) -> DriftReport:
        rows = self._store.recent(standing.version)
        return DriftReport(
            timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
            model_version=standing.version,
            state=standing.state,
            window_size=rows.n,
            mean_probability=_mean(rows.probabilities),
            std_probability=float(rows.probabilities.std()) if rows.n else None,
            low_confidence_ratio=_mean(rows.confidences == _CONFIDENCE_ID["low"]),
            prediction_ratio=_mean(rows.predictions),
            drift_detected=standing.drift_detected,
            drift_score=standing.drift_score,
            diagnosis=standing.diagnosis,
            alerts=standing.alerts,
            signals=standing.signals,
            windows_closed=len(standing.windows),
            open_window=self._store.waiting(standing.version),
            reference_size=baseline.size,
        )


def tell(telemetry: Telemetry, standing: Standing) -> None:
    """Set the gauges; a model version without a closed window shows every signal at rest."""
    scores = dict.fromkeys(SIGNALS, 0.0) | {name: signal.score for name, signal in standing.signals.items()}
    telemetry.drift(scores, ALERT_LEVELS[standing.state])


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _mean(values: np.ndarray[Any, Any]) -> float | None:
    return float(values.mean()) if len(values) else None
