"""Colour descriptions that are no ICC profile (PNG's gAMA and cHRM, code points of cICP and nclx) as ICC profiles."""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
"""A larger profile is not read: the largest in use, of printing presses, have 3 MB."""

_XY = tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
"""Chromaticities of red, green, blue and white."""

_D65: Final = (0.3127, 0.3290)
_C: Final = (0.310, 0.316)
_SMPTE: Final[_XY] = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070), _D65)
_SRGB_XY: Final[_XY] = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)
_PRIMARIES: Final[dict[int, _XY]] = {
    4: ((0.670, 0.330), (0.210, 0.710), (0.140, 0.080), _C),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060), _D65),
    6: _SMPTE,
    7: _SMPTE,
    8: ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    10: ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), (1 / 3, 1 / 3)),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
    22: ((0.630, 0.340), (0.295, 0.605), (0.155, 0.077), _D65),
}
"""Code points of ITU-T H.273 that are not those of sRGB, 1."""
_UNSPECIFIED: Final = frozenset({0, 2, 3})
_Curve = float | tuple[float, float, float, float, float]
"""A pure power, or g, a, b, c, d of (a x + b) ** g from d on and c x below; 0: sRGB's curve."""
_CURVES: Final[dict[int, _Curve]] = {
    4: 2.2,
    5: 2.8,
    7: (2.222222222, 0.899626676, 0.100373324, 0.25, 0.091286342),
    8: 1.0,
    13: 0.0,
    17: (2.6, 1.034080527, 0.0, 0.0, 0.0),
}
"""Transfer characteristics; what is left out is no curve that browsers show, and says nothing."""
_VIDEO: Final = (1, 6, 11, 14, 15)
"""Curves of cameras (BT.709): browsers take them for sRGB's in photos of video codecs, in PNG for the screen's 2.4."""
_STILL_VIDEO: Final = 2.4
_PQ, _HLG = 16, 18
_SCREEN_GAMMA: Final = 2.2
_SAME_GAMMA: Final = 0.05
"""A PNG's gamma alone counts where it differs by more than this share from that of screens."""

_D50: Final = (0.9642, 1.0, 0.8249)
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True, slots=True)
class Described:
    """What code points stand for; `profile` is None for sRGB."""

    profile: bytes | None


def is_hdr(transfer: int) -> bool:
    """Whether a transfer characteristic is PQ or HLG."""
    return transfer in (_PQ, _HLG)


def of_code_points(primaries: int, transfer: int, *, still: bool = False) -> Described | None:
    """Colours by H.273 code points; None where they say nothing or cannot be shown as they are (PQ, HLG).

    Args:
        still: of a PNG, not of a picture of a video codec.
    """
    if transfer in _VIDEO:
        curve: _Curve | None = _STILL_VIDEO if still else 0.0
    else:
        curve = _CURVES.get(transfer)
    if not still and transfer in _UNSPECIFIED:
        curve = 0.0
    if curve is None or primaries in _UNSPECIFIED or (primaries != 1 and primaries not in _PRIMARIES):
        return None
    if primaries == 1 and curve == 0.0:
        return Described(None)
    return Described(_built(_PRIMARIES.get(primaries, _SRGB_XY), curve))


def of_gamma(gamma: int, chromaticities: tuple[int, ...] | None) -> bytes | None:
    """Colours by PNG's gAMA and, if there is one, cHRM, both in units of 1/100,000; None for sRGB or nonsense."""
    if not 100 <= gamma <= 10_000_000:
        return None
    if chromaticities is None:
        same = abs(gamma * _SCREEN_GAMMA / 100_000 - 1) < _SAME_GAMMA
        return None if same else _built(_SRGB_XY, 100_000 / gamma)
    white, red, green, blue = zip(chromaticities[0::2], chromaticities[1::2], strict=True)
    points = tuple((x / 100_000, y / 100_000) for x, y in (red, green, blue, white))
    if any(not 0 < y < 1 or not 0 <= x < 1 for x, y in points):
        return None
    try:
        return _built(points, 100_000 / gamma)
    except np.linalg.LinAlgError:
        return None


@lru_cache(maxsize=32)
def _built(points: _XY, curve: _Curve) -> bytes:
    """A matrix profile."""
    tags = [(b"desc", _text("built")), (b"cprt", _text("none")), (b"wtpt", _xyz(_D50))]
    columns = _matrix(points).T
    tags += [(key, _xyz(tuple(column))) for key, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)]
    tags += [(key, _curve(curve)) for key in (b"rTRC", b"gTRC", b"bTRC")]
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for key, value in tags:
        padded = value + bytes(-len(value) % 4)
        table += key + struct.pack(">II", at + len(body), len(value))
        body += padded
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    head = (head + bytes(12) + b"acsp" + bytes(28) + _xyz(_D50)[8:]).ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + table + body


def _matrix(points: _XY) -> npt.NDArray[np.float64]:
    """RGB to XYZ under D50, adapted by Bradford's method; columns are the primaries."""
    *primaries, white = [np.array([x, y, 1 - x - y]) for x, y in points]
    white /= white[1]
    unscaled = np.stack(primaries, axis=1)
    scaled = unscaled * np.linalg.solve(unscaled, white)
    cones = np.diag((_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white))
    adapted: npt.NDArray[np.float64] = np.linalg.solve(_BRADFORD, cones @ _BRADFORD) @ scaled
    return adapted


def _fixed(value: float) -> bytes:
    return struct.pack(">i", max(-(1 << 31), min((1 << 31) - 1, round(value * 65536))))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _curve(curve: _Curve) -> bytes:
    if not curve:
        curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    kind, values = (3, curve) if isinstance(curve, tuple) else (0, (curve,))
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(_fixed, values))


def _text(value: str) -> bytes:
    raw = value.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">IIHHII", 1, 12, 0x656E, 0x5553, len(raw), 28) + raw
