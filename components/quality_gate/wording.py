"""How figures and verdicts are written: sentences that read alone."""

from math import isfinite

from components.artifacts.evaluation import Metric
from components.artifacts.verdict import GateVerdict

MAX_DECIMALS = 4


def percent(share: float, against: float | None = None) -> str:
    """`94.1 %`; with as many decimals as it takes to stay on the right side of a limit."""
    if not isfinite(share):
        return "not a number"
    decimals = 1
    while against is not None and share != against and decimals < MAX_DECIMALS:
        if round(share * 100, decimals) != round(against * 100, decimals):
            break
        decimals += 1
    return f"{share * 100:.{decimals}f} %"


def limit_percent(share: float) -> str:
    """`85 %`."""
    return f"{round(share * 100, MAX_DECIMALS):g} %"


def points(difference: float) -> str:
    """`+1.2`: percentage points with their sign."""
    return f"{difference * 100:+.1f}" if isfinite(difference) else "not a number"


def confidence_interval(metric: Metric) -> str:
    """`, 95 % CI 6.8-12.0`; empty where no interval is defined."""
    if metric.low is None or metric.high is None:
        return ""
    return f", 95 % CI {metric.low * 100:.1f}-{metric.high * 100:.1f}"


def points_interval(metric: Metric) -> str:
    """`, 95 % CI -2.5 to +0.1`; empty where no interval is defined."""
    if metric.low is None or metric.high is None:
        return ""
    return f", 95 % CI {points(metric.low)} to {points(metric.high)}"


def markdown(verdict: GateVerdict) -> str:
    """The verdict as a page: headline, table of checks, notes."""
    marks = {"passed": "✅ passed", "refused": "❌ refused", "reported": "ℹ️ reported"}
    rows = [f"| {_cell(check.name)} | {marks[check.outcome]} | {_cell(check.sentence)} |" for check in verdict.checks]
    lines = [f"# {verdict.headline}", "", "| check | outcome | |", "|---|---|---|", *rows]
    if verdict.notes:
        lines += ["", *(f"- {note}" for note in verdict.notes)]
    lines += ["", f"Run `{verdict.run_id}`, bundle `{verdict.bundle_digest[:12]}`."]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
