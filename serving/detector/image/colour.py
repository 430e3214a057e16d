"""Any decoded picture to 8-bit sRGB over white, by what its profile does to colours, not by its name."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from threading import Lock
from typing import Final

import numpy as np
from PIL import Image, ImageCms

from serving.detector.image.profiles import MAX_PROFILE_BYTES

SAME_LEVELS: Final = 2
"""A profile that moves no patch of the probe by more than this many of 255 levels is sRGB."""
MAX_CACHE_BYTES: Final = 16 * 1024 * 1024
_TRANSFORM_BYTES: Final = 256 * 1024
"""What a transform takes beside its profile, at least."""

_SPACES: Final = {"L": b"GRAY", "RGB": b"RGB ", "RGBA": b"RGB ", "CMYK": b"CMYK"}
_NEWEST_VERSION: Final = 4
_MONITOR: Final = b"mntr"
_UNREAD_CLASSES: Final = frozenset({b"link", b"abst", b"nmcl"})
"""Classes that littleCMS takes for no picture's profile; browsers do not ask for the class."""


@dataclass(frozen=True, slots=True)
class _Cached:
    transform: ImageCms.ImageCmsTransform | None
    cost: int


class TransformCache:
    """Transforms to sRGB by the digest of their profile, the least recently used first to go; bounded in bytes."""

    def __init__(self, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._kept: OrderedDict[tuple[bytes, str], _Cached] = OrderedDict()
        self.held_bytes = 0

    def get(self, profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
        """The transform for pictures of this mode; None where it would change nothing or the profile is of no use."""
        key = (hashlib.blake2b(profile, digest_size=16).digest(), mode)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key].transform
        transform = _transform(profile, mode)
        entry = _Cached(transform, 128 if transform is None else 2 * len(profile) + _TRANSFORM_BYTES)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = entry
                self.held_bytes += entry.cost
            while self.held_bytes > self._max_bytes:
                _, dropped = self._kept.popitem(last=False)
                self.held_bytes -= dropped.cost
        return transform


_CACHE: Final = TransformCache()


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """An 8-bit picture of any mode as RGB over white.

    Works in place where the mode allows it: at most two pictures of the image's size exist at once.
    """
    if image.mode == "RGB" and profile is None:
        return image
    alpha: Image.Image | None = None
    if image.mode == "LA":
        alpha, image = image.getchannel("A"), image.getchannel("L")
    elif image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if profile is not None:
        image = _apply(image, profile)
    if image.mode == "RGBA":
        alpha = image.getchannel("A")
        opaque = alpha.getextrema() == (255, 255)
        image, alpha = image if not opaque else image.convert("RGB"), None if opaque else alpha
    if alpha is not None and alpha.getextrema() != (255, 255):
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=alpha)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _apply(image: Image.Image, profile: bytes) -> Image.Image:
    """The image in sRGB; as it is where the profile is sRGB already, does not fit the mode, or is broken."""
    if len(profile) > MAX_PROFILE_BYTES:
        return image
    if image.mode == "L" and profile[16:20] == _SPACES["RGB"]:
        image = image.convert("RGB")
    if profile[16:20] != _SPACES.get(image.mode) or not _usable(profile):
        return image
    transform = _CACHE.get(profile, image.mode)
    if transform is None:
        return image
    try:
        if image.mode in ("RGB", "RGBA"):
            ImageCms.applyTransform(image, transform, inPlace=True)
            return image
        return ImageCms.applyTransform(image, transform) or image
    except (ImageCms.PyCMSError, ValueError):
        return image


def _usable(profile: bytes) -> bool:
    """Whether browsers read a profile of this header: it is whole, and of version 4 at most."""
    return len(profile) >= int.from_bytes(profile[:4], "big") and profile[8] <= _NEWEST_VERSION


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    if profile[12:16] in _UNREAD_CLASSES:
        profile = profile[:12] + _MONITOR + profile[16:]
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        found = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, mode if mode == "RGBA" else "RGB")
        if mode == "CMYK":
            return found
        patches = _patches(mode)
        moved = ImageCms.applyTransform(patches, found)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    before, after = (np.asarray(picture.convert("RGB"), np.int16) for picture in (patches, moved or patches))
    return None if np.abs(after - before).max() <= SAME_LEVELS else found


@lru_cache(maxsize=4)
def _patches(mode: str) -> Image.Image:
    """Colours that any other colour space moves: a cube of nine levels a channel and every grey."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    colours = greys if mode == "L" else np.concatenate([cube, greys])
    return Image.fromarray(colours[None]).convert(mode)
