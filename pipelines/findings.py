"""One thing looked at before a run, and how to mend it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """What a check found."""

    status: Literal["ok", "warning", "error"]
    """`warning`: could not be looked at, or is unusual; `error`: a run would fail on it."""
    subject: str
    message: str
