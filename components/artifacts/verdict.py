"""The verdict artifact: what quality_gate says and register, deploy, the command line and the server show."""

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from serving.platform.errors import StageError, one_line
from serving.platform.frozen import Frozen
from serving.platform.records import read_record

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


class GateVerdict(Frozen):
    """`verdict.json`."""

    schema_version: int = 1
    run_id: str
    bundle_digest: str
    evaluation_sha256: str
    """`Evaluation.digest` of what was judged."""
    policy: dict[str, Any]
    """What it was held against: the section `gate` of the run's configuration."""
    passed: bool
    headline: str
    """One line: "PASSED: …" or "REFUSED: FPR on tools 9.1 % (limit 5 %), 95 % CI 6.8-12.0"."""
    checks: list[Check]
    notes: list[str] = []


def read_verdict(folder: Path) -> GateVerdict:
    """Read `verdict.json` of a verdict folder.

    Raises:
        StageError: there is none, or it is damaged or of another version.
    """
    path = folder / VERDICT_JSON
    try:
        return GateVerdict.model_validate_json(read_record(path))
    except OSError as error:
        raise StageError(f"{folder}: no readable {VERDICT_JSON} ({error.strerror}); run the gate first") from error
    except ValidationError as error:
        raise StageError(f"{path}: damaged or of another version: {one_line(error)}; run the gate again") from error
