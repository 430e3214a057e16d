"""GIF: the first frame alone, on the transparent canvas that browsers put it on."""

import struct
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from serving.detector.image.cost import gif_bytes
from serving.detector.image.header import Header, Size
from serving.detector.image.refusal import LEAST_ROWS, damaged, rows_missing
from serving.detector.image.rows import Watched

MAX_BLOCKS: Final = 4096
"""Extension blocks in front of the first frame."""
MAX_PIECES: Final = 65_536
"""Pieces, of at most 255 bytes each, of all those blocks: those of a comment of ten megabytes."""

_IMAGE, _EXTENSION, _CONTROL = 0x2C, 0x21, 0xF9


@dataclass(slots=True)
class Frame:
    """The first frame."""

    canvas: Size
    box: tuple[int, int, int, int]
    """Left, top, width, height on the canvas."""
    flags: int
    palette: bytes
    transparent: int | None
    data: int
    """Offset of the compressed data."""


def walk(data: bytes) -> Frame:
    """Read a GIF up to its first frame.

    Raises:
        ImageRefusedError: there is none, or too much stands before it.
    """
    width, height, flags = struct.unpack_from("<HHB", data.ljust(13, b"\0"), 6)
    colours = _palette_bytes(flags)
    palette, at, transparent = data[13 : 13 + colours], 13 + colours, None
    pieces = 0
    for _ in range(MAX_BLOCKS):
        kind = data[at] if at < len(data) else 0
        if kind == _EXTENSION:
            control = data[at + 1 : at + 2] == bytes([_CONTROL]) and data[at + 2 : at + 3] == b"\x04"
            if control and at + 7 < len(data):
                transparent = data[at + 6] if data[at + 3] & 1 else None
            at += 2
            while at < len(data) and data[at]:
                at += 1 + data[at]
                pieces += 1
                if pieces > MAX_PIECES:
                    raise damaged(f"the GIF has more than {MAX_PIECES:,} pieces of data in front of its picture")
            at += 1
        elif kind == _IMAGE and at + 10 < len(data):
            left, top, across, down, own = struct.unpack_from("<HHHHB", data, at + 1)
            at += 10
            if size := _palette_bytes(own):
                palette, at = data[at : at + size], at + size
            canvas = (max(width, left + across), max(height, top + down))
            return Frame(canvas, (left, top, across, down), own, palette, transparent, at)
        else:
            break
    raise damaged("the GIF data is damaged: it ends before its picture begins")


def _palette_bytes(flags: int) -> int:
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


class GifPicture:
    """An opened GIF."""

    def __init__(self, data: bytes) -> None:
        self._frame = frame = walk(data)
        self._data = data
        self._placed = frame.box != (0, 0, *frame.canvas)
        self.header = Header(
            format="GIF", size=frame.canvas, mode="P", has_alpha=self._placed or frame.transparent is not None
        )

    def need_bytes(self, target_px: int | None) -> int:  # noqa: ARG002 - one scale only
        """See `Picture`."""
        width, height = self.header.size
        return gif_bytes(width * height)

    def load(self, target_px: int | None) -> Image.Image:  # noqa: ARG002 - one scale only
        """See `Picture`."""
        frame = self._frame
        image, share = Watched(self._open, self._last_row()).load()
        if share < LEAST_ROWS:
            raise rows_missing("GIF", share)
        shown = image.convert("RGB")
        if not self.header.has_alpha:
            return shown
        alpha = Image.new("L", shown.size, 255)
        if frame.transparent is not None:
            # indices of a palette, whatever colours they stand for
            indices = Image.frombuffer("L", image.size, image.tobytes(), "raw", "L", 0, 1)
            alpha = indices.point([0 if index == frame.transparent else 255 for index in range(256)])
        shown.putalpha(alpha)
        if not self._placed:
            return shown
        canvas = Image.new("RGBA", frame.canvas)
        canvas.paste(shown, frame.box[:2])
        return canvas

    def _open(self) -> GifImageFile:
        """The first frame as a picture of its own: opaque, at the origin, with its palette."""
        frame = self._frame
        _, _, width, height = frame.box
        # without colours all is black, as in browsers
        colours = frame.palette or bytes(3 * 256)
        size_bits = max(1, (len(colours) // 3 - 1).bit_length()) - 1
        palette = colours.ljust(3 << (size_bits + 1), b"\0")
        head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80 | size_bits, 0, 0) + palette
        own = struct.pack("<BHHHHB", _IMAGE, 0, 0, width, height, frame.flags & 0x40)
        return GifImageFile(BytesIO(head + own + self._data[frame.data :]))

    def _last_row(self) -> int:
        """The row that is read last; an interlaced picture ends with its odd rows."""
        height = self._frame.box[3]
        return height - 1 - (height % 2 if self._frame.flags & 0x40 and height > 1 else 0)
