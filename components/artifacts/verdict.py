"""The verdict artifact: what quality_gate says and register, deploy, the command line and the server show."""

from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from serving.platform.frozen import Frozen

VERDICT_JSON: Final = "verdict.json"
VERDICT_MD: Final = "verdict.md"

Outcome = Literal["passed", "refused", "reported"]


class Check(Frozen):
    """One check of the gate."""

    name: str
    value: float | None
    threshold: float | None
    comparison: Literal[">=", "<=", "=="] = ">="
    low: float | None = None
    high: float | None = None
    enforced: bool = True
    outcome: Outcome
    """`reported`: shown, not enforced."""
    sentence: str
    """Reads alone: "accuracy 94.1 % (at least 85 %), 95 % interval 92.6-95.3"."""


class GateVerdict(BaseModel):
    """`verdict.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: int = 1
    run_id: str
    bundle_digest: str
    passed: bool
    headline: str
    """One line: "PASSED: …" or "REFUSED: FPR on tools 9.1 % (limit 5 %), 95 % CI 6.8-12.0"."""
    checks: list[Check]
    notes: list[str] = []


def read_verdict(folder: Path) -> GateVerdict:
    """Read `verdict.json` of a verdict folder."""
    return GateVerdict.model_validate_json((folder / VERDICT_JSON).read_text())
