"""Answers of other servers: read whole, and no more of them than any answer that we ask for has."""

import time
from typing import TYPE_CHECKING, Final

from serving.platform.records import RECORD_BYTES

if TYPE_CHECKING:
    import httpx

PLAIN: Final = {"Accept-Encoding": "identity"}
"""What a request says whose answer is read here: a compressed one might be of any size."""
LONGEST_ANSWER_S: Final = 30.0


def read_answer(answer: "httpx.Response", most_bytes: int = RECORD_BYTES, longest_s: float = LONGEST_ANSWER_S) -> bytes:
    """The body of an answer that is being streamed, as it was sent.

    Args:
        answer: of `httpx.stream`, nothing of its body read.
        most_bytes: what it may have at most.
        longest_s: seconds that it may take at most.

    Raises:
        ValueError: it is longer, or does not end.
        httpx.HTTPError: it broke off.
    """
    body, until = bytearray(), time.monotonic() + longest_s
    for part in answer.iter_raw():
        body += part
        if len(body) > most_bytes or time.monotonic() > until:
            raise ValueError(f"an answer of more than {most_bytes >> 20} MiB or {longest_s:g} s")
    return bytes(body)
