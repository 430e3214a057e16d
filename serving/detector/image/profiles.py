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
_PRIMARIES: Final[dict[int, _XY]] = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
"""Code points of ITU-T H.273 that are not (nearly) those of sRGB."""
_SRGB_XY: Final[_XY] = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65)
_GAMMAS: Final = {4: 2.2, 5: 2.8, 8: 1.0}
"""Transfer characteristics that are pure powers; the others are taken for sRGB's, as browsers do."""
_PQ, _HLG = 16, 18

_D50: Final = (0.9642, 1.0, 0.8249)
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True, slots=True)
class Described:
    """What code points stand for; `profile` is None for sRGB."""

    profile: bytes | None


def is_hdr(transfer: int) -> bool:
    """Whether a transfer characteristic is PQ or HLG."""
    return transfer in (_PQ, _HLG)


def of_code_points(primaries: int, transfer: int) -> Described | None:
    """Colours by H.273 code points; None where they say nothing or cannot be shown as they are (PQ, HLG)."""
    if is_hdr(transfer) or primaries in (0, 2) or transfer == 0:
        return None
    if primaries not in _PRIMARIES and transfer not in _GAMMAS:
        return Described(None)
    return Described(_built(_PRIMARIES.get(primaries, _SRGB_XY), _GAMMAS.get(transfer, 0.0)))


def of_gamma(gamma: int, chromaticities: tuple[int, ...]) -> bytes | None:
    """Colours by PNG's gAMA and cHRM, both in units of 1/100,000; None where they make no colour space."""
    white, red, green, blue = zip(chromaticities[0::2], chromaticities[1::2], strict=True)
    points = tuple((x / 100_000, y / 100_000) for x, y in (red, green, blue, white))
    if not 1_000 <= gamma <= 1_000_000 or any(not 0 < y < 1 or not 0 <= x < 1 for x, y in points):
        return None
    try:
        return _built(points, 100_000 / gamma)
    except np.linalg.LinAlgError:
        return None


@lru_cache(maxsize=32)
def _built(points: _XY, gamma: float) -> bytes:
    """A matrix profile; `gamma` 0 is sRGB's curve."""
    tags = [(b"desc", _text("built")), (b"cprt", _text("none")), (b"wtpt", _xyz(_D50))]
    columns = _matrix(points).T
    tags += [(key, _xyz(tuple(column))) for key, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)]
    tags += [(key, _curve(gamma)) for key in (b"rTRC", b"gTRC", b"bTRC")]
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
    *primaries, white = [np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in points]
    unscaled = np.stack(primaries, axis=1)
    scaled = unscaled * np.linalg.solve(unscaled, white)
    cones = np.diag((_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white))
    adapted: npt.NDArray[np.float64] = np.linalg.solve(_BRADFORD, cones @ _BRADFORD) @ scaled
    return adapted


def _fixed(value: float) -> bytes:
    return struct.pack(">i", max(-(1 << 31), min((1 << 31) - 1, round(value * 65536))))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _curve(gamma: float) -> bytes:
    kind, values = (0, (gamma,)) if gamma else (3, (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(_fixed, values))


def _text(value: str) -> bytes:
    raw = value.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">IIHHII", 1, 12, 0x656E, 0x5553, len(raw), 28) + raw
