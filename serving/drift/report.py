"""What `/drift` answers."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DriftState = Literal["collecting", "ok", "drift", "alarm"]

ALERT_LEVELS: dict[DriftState, int] = {"collecting": 0, "ok": 0, "drift": 1, "alarm": 2}
"""Value of the gauge `aidetect_drift_alert` in each state."""


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class SignalReport(_Report):
    """One signal in the last closed window."""

    score: float = Field(description="Effect size: 0..1 of the traffic moved; PSI for score_psi.")
    p_value: float | None = Field(description="Of this signal's own test; null where it could not be tested.")
    adjusted_p_value: float | None = Field(description="After correction for all signals of the window.")
    drifted: bool


class DriftAlert(_Report):
    """One thing that moved, in words."""

    signal: str
    severity: Literal["warning", "alarm"]
    message: str


class DriftReport(_Report):
    """Drift of the served model version: a sliding view for the eye, tumbling windows for the tests."""

    timestamp: str
    model_version: str
    state: DriftState
    window_size: int = Field(description="Predictions in the sliding view, at most DRIFT_WINDOW.")
    mean_probability: float | None
    std_probability: float | None
    low_confidence_ratio: float | None
    prediction_ratio: float | None = Field(description="Share called ai_generated in the sliding view.")
    drift_detected: bool = Field(description="The last closed window moved, or the alarm still stands.")
    drift_score: float = Field(description="Largest effect in the last closed window, 0..1 (PSI apart).")
    diagnosis: str
    alerts: list[DriftAlert]
    signals: dict[str, SignalReport] = Field(description="Of the last closed window; empty before the first.")
    windows_closed: int = Field(description="Windows of this version on record, at most 100.")
    open_window: int = Field(description="Predictions collected for the next test.")
    reference_size: int


class DriftSummary(_Report):
    """The few words `/health` has on drift."""

    state: DriftState
    drift_detected: bool
    drift_score: float
