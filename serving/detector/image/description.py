"""How much a HEIC or AVIF may say of itself: its decoders look for every part among all parts that they have met."""

from typing import Final

from serving.detector.image.refusal import damaged
from serving.provenance.isobmff import boxes

MAX_DESCRIBED: Final = 1 << 16
"""Bytes of lists of parts: two thousand tiles, where a phone writes fifty."""
_MOST_BOXES: Final = 4096
"""In one place; a motion photo has some twenty."""
_FULL: Final = 4
"""Version and flags, in front of what a `meta` box holds."""
_LISTS: Final = frozenset({b"meta", b"iprp", b"ipco"})
"""Boxes of boxes."""
_CONTENT: Final = frozenset({b"idat", b"colr", b"uuid", b"free", b"skip"})
"""What is large because it holds something, not because it lists much."""


def check(data: bytes, name: str) -> None:
    """Refuse a file that lists more parts than a picture has.

    Time grows with their square: a file of 1.4 MB that named 60,000 tiles kept a core for twenty seconds.

    Raises:
        ImageRefusedError: `corrupt`.
    """
    described = _described(data, 0, len(data))
    if described > MAX_DESCRIBED:
        raise damaged(f"the {name} lists more parts than a picture has ({MAX_DESCRIBED >> 10} KiB of them at most)")


def _described(data: bytes, start: int, end: int, top: bool = True) -> int:
    """Bytes of what is listed between two places; where it is more than allowed, some number above."""
    size = 0
    for number, (name, first, last) in enumerate(boxes(data, start, end, _MOST_BOXES + 1)):
        size += 8
        if number == _MOST_BOXES:
            # what stands behind them is not looked at
            return MAX_DESCRIBED + 1
        if name in _LISTS:
            size += _described(data, first + _FULL * (name == b"meta"), last, top=False)
        elif not top and name not in _CONTENT:
            size += last - first
        if size > MAX_DESCRIBED:
            break
    return size
