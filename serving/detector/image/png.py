"""PNG: Pillow is given only the chunks that make the picture.

So neither a broken nor a huge text, profile or EXIF chunk can stand in the way, nor does their number cost time.
"""

import struct
from io import BytesIO
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from serving.detector.image import exif, png_chunks, profiles
from serving.detector.image.cost import PLACED_BYTES, png_bytes
from serving.detector.image.header import Header, Size
from serving.detector.image.png_chunks import SIGNATURE, embedded_profile, walk
from serving.detector.image.refusal import LEAST_ROWS, damaged, rows_missing
from serving.detector.image.rows import Watched

_FULL_RGB: Final = b"\0\1"
"""Matrix and range of a cICP chunk that browsers obey."""
_MODES: Final = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}


class PngPicture:
    """An opened PNG."""

    def __init__(self, data: bytes) -> None:
        self._chunks = chunks = walk(data)
        width, height, self._depth, self._kind, _, _, self._interlaced = struct.unpack(">IIBBBBB", chunks.head)
        mode = _MODES.get(self._kind)
        if mode is None or self._depth not in (1, 2, 4, 8, 16):
            raise damaged("the PNG data is damaged: its header names no known colours")
        stated = exif.read(chunks.other.get(b"eXIf", b""))
        embedded = embedded_profile(chunks.other.get(b"iCCP"))
        code_points = _code_points(chunks.other.get(b"cICP", b""))
        self._key = self._transparent()
        frame = chunks.frame if chunks.frame is not None and chunks.frame.data else None
        self._frame_size: Size = frame.size if frame else (width, height)
        self._offset: Size = frame.offset if frame else (0, 0)
        self._data = frame.data if frame else chunks.data
        self._placed = self._frame_size != (width, height)
        self.header = Header(
            format="PNG",
            size=(width, height),
            mode=self._pillow_mode(mode),
            has_alpha=self._placed
            or self._kind in (4, 6)
            or self._key is not None
            or (self._kind == 3 and b"tRNS" in chunks.other),
            orientation=stated.orientation,
            has_exif=stated.present,
            frames=chunks.frames,
            profile=self._profile(embedded, code_points),
            has_icc=embedded is not None,
            hdr=code_points is not None and profiles.is_hdr(code_points[1]),
        )

    def need_bytes(self, target_px: int | None) -> int:  # noqa: ARG002 - one scale only
        """See `Picture`."""
        width, height = self.header.size
        bytes_per_pixel = png_bytes(
            self.header.mode,
            self._depth,
            self.header.has_alpha,
            self.header.orientation != 1,
            self.header.profile is not None,
        )
        if self._placed:
            bytes_per_pixel += PLACED_BYTES
        return int(width * height * bytes_per_pixel) + sum(map(len, self._data))

    def load(self, target_px: int | None) -> Image.Image:  # noqa: ARG002 - one scale only
        """See `Picture`."""
        image = self._frame()
        if not self._placed:
            return image
        canvas = Image.new("RGBA", self.header.size)
        canvas.paste(image.convert("RGBA"), self._offset)
        return canvas

    def _frame(self) -> Image.Image:
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

    def _profile(self, embedded: bytes | None, code_points: tuple[int, int] | None) -> bytes | None:
        """By the precedence of the standard: cICP, iCCP, sRGB, then gAMA with or without cHRM."""
        other = self._chunks.other
        if code_points is not None and (found := profiles.of_code_points(*code_points, still=True)) is not None:
            return found.profile
        if embedded is not None:
            return embedded if embedded[16:20] != b"GRAY" or self._kind in (0, 4) else None
        gamma, points = other.get(b"gAMA", b""), other.get(b"cHRM", b"")
        if b"sRGB" in other or len(gamma) != 4:
            return None
        chromaticities = struct.unpack(">8I", points) if len(points) == 32 else None
        return profiles.of_gamma(int.from_bytes(gamma, "big"), chromaticities)

    def _pixels(self, rawmode: str = "") -> Image.Image:
        """The picture as Pillow reads it; `rawmode` overrides how samples become bytes.

        Raises:
            ImageRefusedError: `corrupt`, rows are missing.
        """
        chunks, pieces = self._chunks, self._data
        head = struct.pack(">II", *self._frame_size) + chunks.head[8:]
        parts: list[bytes | memoryview] = [SIGNATURE, png_chunks.of(b"IHDR", head)]
        if self._kind == 3:
            parts.append(png_chunks.of(b"PLTE", chunks.palette))
            if b"tRNS" in chunks.other:
                parts.append(png_chunks.of(b"tRNS", chunks.other[b"tRNS"]))
        # the checksum of the data's own stream is tested by Pillow; the chunk's is not
        parts += [struct.pack(">I4s", sum(map(len, pieces)), b"IDAT"), *pieces, bytes(4)]
        parts.append(png_chunks.of(b"IEND", b""))
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
        height = self._frame_size[1]
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


def _code_points(chunk: bytes) -> tuple[int, int] | None:
    """Primaries and transfer of a cICP chunk; None where there is none for RGB of full range."""
    return (chunk[0], chunk[1]) if len(chunk) == 4 and chunk[2:] == _FULL_RGB else None


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
