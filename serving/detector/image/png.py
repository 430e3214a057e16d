"""PNG: chunks read by their lengths; Pillow is given only those that make the picture.

So neither a broken nor a huge text, profile or EXIF chunk can stand in the way, nor does their number cost time.
"""

import struct
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from serving.detector.image import exif, profiles
from serving.detector.image.cost import png_bytes
from serving.detector.image.header import Header
from serving.detector.image.refusal import LEAST_ROWS, damaged, rows_missing
from serving.detector.image.rows import Watched

MAX_CHUNKS: Final = 65_536
"""Chunks of one file; encoders write a few thousand at most."""
_MAX_EXIF: Final = 1 << 20

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_MODES: Final = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
_KEPT: Final = frozenset({b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"eXIf"})


@dataclass(slots=True)
class Chunks:
    """What the chunks say."""

    head: bytes = b""
    """IHDR's 13 bytes."""
    palette: bytes = b""
    data: list[memoryview] = field(default_factory=list)
    """The image data's pieces."""
    other: dict[bytes, bytes] = field(default_factory=dict)
    """The first chunk of each ancillary kind that is used."""
    frames: int = 1


def walk(data: bytes) -> Chunks:
    """Read a PNG's chunks; ancillary ones with a wrong checksum are left out, as browsers do.

    Raises:
        ImageRefusedError: no header, no image data, or too many chunks.
    """
    found = Chunks()
    view = memoryview(data)
    at, total = len(_SIGNATURE), len(data)
    for _ in range(MAX_CHUNKS):
        if at + 8 > total:
            break
        length, kind = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        body = view[at + 8 : min(at + 8 + length, total)]
        whole = at + 12 + length <= total
        if kind == b"IDAT":
            found.data.append(body)
        elif kind == b"IEND" or not whole:
            break
        elif kind in (b"IHDR", b"PLTE"):
            _critical(found, kind, body, view[at + 8 + length : at + 12 + length])
        elif kind in _KEPT and kind not in found.other and length <= _MAX_EXIF + profiles.MAX_PROFILE_BYTES:
            if zlib.crc32(body, zlib.crc32(kind)) == int.from_bytes(view[at + 8 + length : at + 12 + length], "big"):
                found.other[kind] = bytes(body)
        elif kind == b"acTL" and length == 8:
            found.frames = max(1, int.from_bytes(body[:4], "big"))
        at += 12 + length
    else:
        raise damaged(f"the PNG has more than {MAX_CHUNKS:,} chunks")
    if len(found.head) != 13 or not found.data:
        raise damaged("the PNG data is damaged: it ends before its picture begins")
    return found


def _critical(found: Chunks, kind: bytes, body: memoryview, checksum: memoryview) -> None:
    if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(checksum, "big"):
        raise damaged(f"the PNG data is damaged: its {'header' if kind == b'IHDR' else 'palette'} fails its checksum")
    if kind == b"IHDR":
        found.head = found.head or bytes(body)
    else:
        found.palette = found.palette or bytes(body)


class PngPicture:
    """An opened PNG."""

    def __init__(self, data: bytes) -> None:
        self._chunks = chunks = walk(data)
        width, height, self._depth, self._kind, _, _, self._interlaced = struct.unpack(">IIBBBBB", chunks.head)
        mode = _MODES.get(self._kind)
        if mode is None or self._depth not in (1, 2, 4, 8, 16):
            raise damaged("the PNG data is damaged: its header names no known colours")
        stated = exif.read(chunks.other.get(b"eXIf", b""))
        embedded = _embedded(chunks.other.get(b"iCCP"))
        code_points = chunks.other.get(b"cICP", b"")
        self._key = self._transparent()
        self.header = Header(
            format="PNG",
            size=(width, height),
            mode=self._pillow_mode(mode),
            has_alpha=self._kind in (4, 6) or self._key is not None or (self._kind == 3 and b"tRNS" in chunks.other),
            orientation=stated.orientation,
            has_exif=stated.present,
            frames=chunks.frames,
            profile=self._profile(embedded, code_points),
            has_icc=embedded is not None,
            hdr=profiles.is_hdr(code_points[1]) if len(code_points) == 4 else False,
        )

    def need_bytes(self, target_px: int | None) -> int:  # noqa: ARG002 - one scale only
        """See `Picture`."""
        width, height = self.header.size
        bytes_per_pixel = png_bytes(self.header.mode, self._depth, self.header.has_alpha, self.header.orientation != 1)
        return int(width * height * bytes_per_pixel) + sum(map(len, self._chunks.data))

    def load(self, target_px: int | None) -> Image.Image:  # noqa: ARG002
        """See `Picture`."""
        if self._depth == 16:
            return self._deep()
        image = self._pixels()
        if self._key is None:
            return image
        scale = 255 // ((1 << self._depth) - 1)
        return _with_key(image if image.mode != "1" else image.convert("L"), tuple(key * scale for key in self._key))

    def _pillow_mode(self, mode: str) -> str:
        if self._depth == 16 and mode == "L":
            return "I;16"
        return "1" if self._depth == 1 and mode == "L" else mode

    def _transparent(self) -> tuple[int, ...] | None:
        """The colour that tRNS makes transparent, as stored samples of `depth` bits; None for palettes and alpha."""
        value = self._chunks.other.get(b"tRNS", b"")
        samples = {0: 1, 2: 3}.get(self._kind, 0)
        if not samples or len(value) < 2 * samples:
            return None
        return tuple(key & ((1 << self._depth) - 1) for key in struct.unpack_from(f">{samples}H", value))

    def _profile(self, embedded: bytes | None, code_points: bytes) -> bytes | None:
        """By the precedence of the standard: cICP, iCCP, sRGB, then gAMA with cHRM."""
        other = self._chunks.other
        if len(code_points) == 4 and (found := profiles.of_code_points(code_points[0], code_points[1])) is not None:
            return found.profile
        if embedded is not None:
            grey, wanted = embedded[16:20] == b"GRAY", self._kind in (0, 4)
            return embedded if grey == wanted else None
        if b"sRGB" in other or len(other.get(b"gAMA", b"")) != 4 or len(other.get(b"cHRM", b"")) != 32:
            return None
        if self._kind in (0, 4):
            return None
        return profiles.of_gamma(int.from_bytes(other[b"gAMA"], "big"), struct.unpack(">8I", other[b"cHRM"]))

    def _pixels(self, rawmode: str = "") -> Image.Image:
        """The picture as Pillow reads it; `rawmode` overrides how samples become bytes.

        Raises:
            ImageRefusedError: `corrupt`, rows are missing.
        """
        chunks = self._chunks
        parts: list[bytes | memoryview] = [_SIGNATURE, _chunk(b"IHDR", chunks.head)]
        if self._kind == 3:
            parts.append(_chunk(b"PLTE", chunks.palette))
            if b"tRNS" in chunks.other:
                parts.append(_chunk(b"tRNS", chunks.other[b"tRNS"]))
        # the checksum of the data's own stream is tested by Pillow; the chunk's is not
        parts += [struct.pack(">I4s", sum(map(len, chunks.data)), b"IDAT"), *chunks.data, bytes(4)]
        parts.append(_chunk(b"IEND", b""))
        encoded = b"".join(parts)
        watched = Watched(lambda: self._open(encoded, rawmode), self._last_row())
        image, share = watched.load()
        if share < LEAST_ROWS:
            raise rows_missing("PNG", share)
        return image

    def _open(self, encoded: bytes, rawmode: str) -> PngImageFile:
        image = PngImageFile(BytesIO(encoded))
        if rawmode:
            image.tile = [tile._replace(args=rawmode) for tile in image.tile]
        return image

    def _last_row(self) -> int:
        """The row that is read last: the lowest, of an interlaced picture the lowest of the last pass."""
        height = self.header.size[1]
        return height - 1 - (height % 2 if self._interlaced and height > 1 else 0)

    def _deep(self) -> Image.Image:
        """16 bits a channel, rounded to 8, with what tRNS makes transparent."""
        if self._kind == 0:
            return rounded_grey(self._pixels(), self._key)
        if self._kind == 4:
            # grey and alpha, two bytes each, are as wide as four channels
            return _rounded_grey_alpha(self._pixels("RGBA"))
        high = self._pixels()
        # Pillow keeps one byte of each sample: as little-endian, the other one
        low = self._pixels(f"{high.mode};16L")
        return _rounded_colour(high, low, self._key)


def _embedded(chunk: bytes | None) -> bytes | None:
    """The profile of an iCCP chunk; None where there is none that can be used."""
    if not chunk:
        return None
    name, _, rest = chunk.partition(b"\0")
    if not name or rest[:1] != b"\0":
        return None
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(rest[1:], profiles.MAX_PROFILE_BYTES + 1)
    except zlib.error:
        return None
    return found if 128 <= len(found) <= profiles.MAX_PROFILE_BYTES else None


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


_STRIP_ROWS: Final = 32
"""Rows that numpy works on at once, so that its copies stay small."""


def _strips(height: int) -> list[tuple[int, int]]:
    return [(top, min(height, top + _STRIP_ROWS)) for top in range(0, height, _STRIP_ROWS)]


def _with_key(image: Image.Image, key: tuple[int, ...]) -> Image.Image:
    """An 8-bit picture with its key colour transparent."""
    scaled = Image.new(image.mode, (1, 1), key if len(key) > 1 else key[0])
    alpha = Image.new("L", image.size, 255)
    wanted = np.asarray(scaled)[0, 0]
    for top, bottom in _strips(image.height):
        strip = np.asarray(image.crop((0, top, image.width, bottom)))
        same = (strip == wanted).all(-1) if strip.ndim == 3 else strip == wanted
        alpha.paste(Image.fromarray(np.where(same, 0, 255).astype(np.uint8)), (0, top))
    image.putalpha(alpha)
    return image


def _rounded(deep: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return ((deep * 255 + 32895) >> 16).astype(np.uint8)


def rounded_grey(image: Image.Image, key: tuple[int, ...] | None) -> Image.Image:
    """A 16-bit grey picture in 8 bits, rounded, with its key transparent."""
    grey = Image.new("L", image.size)
    alpha = None if key is None else Image.new("L", image.size, 255)
    for top, bottom in _strips(image.height):
        deep = np.asarray(image.crop((0, top, image.width, bottom))).astype(np.uint32)
        grey.paste(Image.fromarray(_rounded(deep)), (0, top))
        if alpha is not None and key is not None:
            alpha.paste(Image.fromarray(np.where(deep == key[0], 0, 255).astype(np.uint8)), (0, top))
    if alpha is not None:
        grey.putalpha(alpha)
    return grey


def _rounded_grey_alpha(image: Image.Image) -> Image.Image:
    found = Image.new("LA", image.size)
    for top, bottom in _strips(image.height):
        halves = np.asarray(image.crop((0, top, image.width, bottom))).astype(np.uint32)
        deep = (halves[..., 0::2] << 8) | halves[..., 1::2]
        found.paste(Image.fromarray(_rounded(deep), "LA"), (0, top))
    return found


def _rounded_colour(high: Image.Image, low: Image.Image, key: tuple[int, ...] | None) -> Image.Image:
    """Rounds in place: `high` and `low` have the two bytes of each sample."""
    alpha = None if key is None else Image.new("L", high.size, 255)
    for top, bottom in _strips(high.height):
        box = (0, top, high.width, bottom)
        deep = (np.asarray(high.crop(box)).astype(np.uint32) << 8) | np.asarray(low.crop(box))
        high.paste(Image.fromarray(_rounded(deep)), (0, top))
        if alpha is not None:
            same = (deep == np.array(key, np.uint32)).all(-1)
            alpha.paste(Image.fromarray(np.where(same, 0, 255).astype(np.uint8)), (0, top))
    if alpha is not None:
        high.putalpha(alpha)
    return high
