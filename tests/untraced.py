"""Processes that coverage does not follow: it makes Python about half again as slow, ours and everyone's."""

import os
from collections.abc import Mapping
from typing import Final

STARTS_COVERAGE: Final = "COVERAGE_"
"""By variables of this prefix, coverage starts with a process."""


def untraced(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`environment` for a process with no line of ours to count, or none that another test has not counted."""
    return {name: value for name, value in environment.items() if not name.startswith(STARTS_COVERAGE)}
