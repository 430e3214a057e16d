"""WebP: chunks read by their lengths, the first frame decoded alone, at reduced scale where memory asks for it."""

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from serving.detector.image import exif, libwebp, profiles
from serving.detector.image.buffers import as_image
from serving.detector.image.cost import AMPLE_BYTES, webp_bytes
from serving.detector.image.header import Header, Size
from serving.detector.image.jpeg import JPEG_DRAFT_FACTOR
from serving.detector.image.refusal import LEAST_ROWS, damaged, rows_missing

MAX_CHUNKS: Final = 4096
"""Chunks of one file that are looked at; what the picture needs stands in front."""
_MAX_EXIF: Final = 1 << 20
_ALPHA_FLAG: Final = 0x10
_PROFILE_FLAG: Final = 0x20


@dataclass(slots=True)
class Chunks:
    """What the chunks say."""

    canvas: Size | None = None
    flags: int = _PROFILE_FLAG | _ALPHA_FLAG
    """What the file says it has; a plain file, which says nothing, may have all."""
    image: bytes = b""
    """The first frame's `VP8 ` or `VP8L` chunk with its header."""
    alpha: bytes = b""
    """Its `ALPH` chunk with its header."""
    offset: Size = (0, 0)
    frames: int = 0
    profile: bytes | None = None
    exif_block: bytes = b""


def walk(data: bytes) -> Chunks:
    """Read a WebP's chunks.

    Raises:
        ImageRefusedError: no image in it.
    """
    found = Chunks()
    at = 12
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            break
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        start, end = at + 8, min(at + 8 + length, len(data))
        if kind == b"VP8X" and length >= 10 and found.canvas is None:
            found.flags = data[start] if start < len(data) else 0
            found.canvas = (_24(data, start + 4) + 1, _24(data, start + 7) + 1)
        elif kind in (b"VP8 ", b"VP8L", b"ALPH"):
            _frame_part(found, kind, data[at:end])
        elif kind == b"ANMF":
            found.frames += 1
            if found.frames == 1:
                _frame(found, data[start:end])
        elif kind == b"ICCP" and found.profile is None and 128 <= length <= profiles.MAX_PROFILE_BYTES:
            found.profile = data[start:end]
        elif kind == b"EXIF" and not found.exif_block:
            found.exif_block = data[start : min(end, start + _MAX_EXIF)]
        at += 8 + length + (length & 1)
    if not found.image:
        raise damaged("the WebP data is damaged: it ends before its picture begins")
    return found


def _frame(found: Chunks, body: bytes) -> None:
    found.offset = (2 * _24(body, 0), 2 * _24(body, 3))
    at = 16
    while at + 8 <= len(body) and not found.image:
        length = int.from_bytes(body[at + 4 : at + 8], "little")
        _frame_part(found, body[at : at + 4], body[at : at + 8 + length])
        at += 8 + length + (length & 1)


def _frame_part(found: Chunks, kind: bytes, chunk: bytes) -> None:
    if kind == b"ALPH" and not found.image:
        found.alpha = found.alpha or chunk
    elif kind in (b"VP8 ", b"VP8L"):
        found.image = found.image or chunk


def _24(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")


class WebpPicture:
    """An opened WebP."""

    def __init__(self, data: bytes) -> None:
        self._chunks = chunks = walk(data)
        self._frame_size, has_alpha, self._lossless = _stream_header(chunks.image)
        # what the file does not say that it has is not shown; a lossless stream speaks for itself
        self._has_alpha = has_alpha or bool(chunks.flags & _ALPHA_FLAG and chunks.alpha)
        profile = chunks.profile if chunks.flags & _PROFILE_FLAG else None
        # a still picture's canvas is its frame
        self._canvas = chunks.canvas if chunks.frames and chunks.canvas else self._frame_size
        stated = exif.read(chunks.exif_block)
        placed = self._canvas != self._frame_size
        self.header = Header(
            format="WEBP",
            size=self._canvas,
            mode="RGBA" if self._has_alpha or placed else "RGB",
            has_alpha=self._has_alpha or placed,
            orientation=stated.orientation,
            has_exif=stated.present,
            frames=max(1, chunks.frames),
            profile=profile,
            has_icc=profile is not None,
        )

    def need_bytes(self, target_px: int | None) -> int:
        """See `Picture`."""
        return self._need(self._scaled(target_px))

    def _need(self, size: Size) -> int:
        stored = self._frame_size[0] * self._frame_size[1] if self._lossless else 0
        return webp_bytes(self.header.mode, size[0] * size[1], stored, self.header.orientation != 1)

    def load(self, target_px: int | None) -> Image.Image:
        """See `Picture`."""
        size = self._scaled(target_px)
        frame, scaled = self._still(), size != self._frame_size
        try:
            pixels = libwebp.decode(frame, size, scaled)
        except libwebp.WebpError:
            pixels, rows = libwebp.decode_what_is_there(frame, size, scaled)
            share = rows / size[1]
            if share < LEAST_ROWS:
                raise rows_missing("WebP", share) from None
        return self._placed(pixels)

    def _scaled(self, target_px: int | None) -> Size:
        """The frame's size after decoding: whole, or halved as often as memory asks and the target allows."""
        width, height = self._frame_size
        if target_px is None or self._canvas != self._frame_size:
            return width, height
        least = JPEG_DRAFT_FACTOR * target_px
        size, factor = (width, height), 1
        while self._need(size) > AMPLE_BYTES and min(width, height) // (2 * factor) >= least:
            factor *= 2
            size = (-(-width // factor), -(-height // factor))
        return size

    def _still(self) -> bytes:
        """The first frame as a file of its own."""
        chunks = self._chunks
        body = chunks.image
        if chunks.alpha and self._has_alpha:
            width, height = self._frame_size
            sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
            extended = b"VP8X" + struct.pack("<II", 10, _ALPHA_FLAG) + sides
            body = extended + chunks.alpha + bytes(len(chunks.alpha) & 1) + body
        # the size that a whole file would have, so that one cut short is known to be
        missing = 8 + int.from_bytes(chunks.image[4:8], "little") - len(chunks.image)
        total = 4 + len(body) + max(0, missing)
        riff = struct.pack("<I", min(total + (total & 1), (1 << 32) - 10))
        return b"RIFF" + riff + b"WEBP" + body + (b"" if missing > 0 else bytes(len(body) & 1))

    def _placed(self, pixels: npt.NDArray[np.uint8]) -> Image.Image:
        mode = "RGBA" if self._has_alpha else "RGB"
        image = as_image(pixels, mode)
        if self._canvas == self._frame_size:
            return image
        canvas = Image.new("RGBA", self._canvas)
        canvas.paste(image, self._chunks.offset)
        return canvas


def _stream_header(chunk: bytes) -> tuple[Size, bool, bool]:
    """Size, whether a lossless stream says that it has alpha, and whether it is lossless."""
    if chunk[:4] == b"VP8L" and chunk[8:9] == b"\x2f" and len(chunk) >= 13:
        bits = int.from_bytes(chunk[9:13], "little")
        return ((bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1), bool(bits >> 28 & 1), True
    if chunk[:4] == b"VP8 " and chunk[11:14] == b"\x9d\x01\x2a" and len(chunk) >= 18:
        width, height = struct.unpack_from("<HH", chunk, 14)
        return (width & 0x3FFF, height & 0x3FFF), False, False
    raise damaged("the WebP data is damaged: it ends before its picture begins")
