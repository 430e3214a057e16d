"""Ids of requests: 32 hexadecimal digits that name one request, and are not guessed.

The first eight are this process's own, the next eight the second in which the request came: so any instance knows where
another one's answer is written down (`serving.feedback.answers`). The other sixteen are drawn.
"""

import os
import re
import secrets
import time
from typing import Final, NamedTuple

_SHAPE: Final = re.compile(r"([0-9a-f]{8})([0-9a-f]{8})[0-9a-f]{16}")
_processes: dict[int, str] = {}


class Origin(NamedTuple):
    """Where and when an id was given."""

    process: str
    second: int
    """Unix time."""


def process_id() -> str:
    """This process's own eight digits, drawn once; a forked child draws its own."""
    pid = os.getpid()
    if pid not in _processes:
        _processes[pid] = secrets.token_hex(4)
    return _processes[pid]


def new_request_id() -> str:
    """An id for a request that came just now."""
    return f"{process_id()}{int(time.time()) & 0xFFFFFFFF:08x}{secrets.token_hex(8)}"


def origin(request_id: str) -> Origin | None:
    """Where an id was given; None where it is none of ours."""
    found = _SHAPE.fullmatch(request_id)
    return Origin(found[1], int(found[2], 16)) if found else None
