"""The libwebp that Pillow is linked with, called directly: Pillow itself decodes by way of an animation's canvases,
which takes two to three times the memory, knows no reduced scale and does not say which rows it read.
"""

import ctypes
from ctypes import POINTER, Structure, byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_ABI: Final = 0x0209
"""WEBP_DECODER_ABI_VERSION; libwebp refuses another major version than its own."""
_RGBA: Final = 1
_OK: Final = 0


class _Features(Structure):
    _fields_ = [("values", c_int * 5), ("pad", c_uint32 * 5)]


class _Rgba(Structure):
    _fields_ = [("pixels", c_void_p), ("stride", c_int), ("size", c_size_t)]


class _Yuva(Structure):
    _fields_ = [("planes", c_void_p * 4), ("strides", c_int * 4), ("sizes", c_size_t * 4)]


class _Planes(ctypes.Union):
    _fields_ = [("rgba", _Rgba), ("yuva", _Yuva)]


class _Buffer(Structure):
    _fields_ = [
        ("colourspace", c_int),
        ("width", c_int),
        ("height", c_int),
        ("is_external_memory", c_int),
        ("planes", _Planes),
        ("pad", c_uint32 * 4),
        ("private_memory", c_void_p),
    ]


class _Options(Structure):
    _fields_ = [
        ("bypass_filtering", c_int),
        ("no_fancy_upsampling", c_int),
        ("use_cropping", c_int),
        ("crop", c_int * 4),
        ("use_scaling", c_int),
        ("scaled_width", c_int),
        ("scaled_height", c_int),
        ("use_threads", c_int),
        ("rest", c_int * 3),
        ("pad", c_uint32 * 5),
    ]


class _Config(Structure):
    _fields_ = [("input", _Features), ("output", _Buffer), ("options", _Options)]


class WebpError(Exception):
    """The data does not decode as a whole."""


def decode(frame: bytes, size: tuple[int, int], scaled: bool) -> npt.NDArray[np.uint8]:
    """Decode a still WebP to RGBA of shape (height, width, 4) and `size` (width, height), while it is read if `scaled`.

    Raises:
        WebpError: damaged or cut short.
    """
    library = _library()
    pixels, config = _target(size, scaled)
    status = library.WebPDecode(frame, len(frame), byref(config))
    if status != _OK:
        raise WebpError(f"status {status}")
    return pixels


def decode_what_is_there(frame: bytes, size: tuple[int, int], scaled: bool) -> tuple[npt.NDArray[np.uint8], int]:
    """As `decode`, from data that is cut short: the pixels and how many of their rows could be read."""
    library = _library()
    pixels, config = _target(size, scaled)
    decoder = library.WebPIDecode(None, 0, byref(config))
    if not decoder:
        return pixels, 0
    try:
        library.WebPIUpdate(decoder, frame, len(frame))
        rows = c_int(0)
        library.WebPIDecGetRGB(decoder, byref(rows), None, None, None)
    finally:
        library.WebPIDelete(decoder)
    return pixels, max(0, rows.value)


def _target(size: tuple[int, int], scaled: bool) -> tuple[npt.NDArray[np.uint8], _Config]:
    width, height = size
    pixels = np.zeros((height, width, 4), np.uint8)
    config = _Config()
    if not _library().WebPInitDecoderConfigInternal(byref(config), _ABI):
        raise WebpError("another ABI")
    config.output.colourspace = _RGBA
    config.output.is_external_memory = 1
    config.output.planes.rgba = _Rgba(pixels.ctypes.data, 4 * width, pixels.nbytes)
    if scaled:
        # chroma is no longer interpolated then: asked for only where the size differs
        config.options.use_scaling = 1
        config.options.scaled_width, config.options.scaled_height = size
    return pixels, config


@lru_cache(maxsize=1)
def _library() -> Any:
    from PIL import _webp

    # symbols are looked up in what the module is linked with, too
    library = ctypes.CDLL(_webp.__file__)
    pointer = POINTER(_Config)
    library.WebPInitDecoderConfigInternal.argtypes = (pointer, c_int)
    library.WebPDecode.argtypes = (c_char_p, c_size_t, pointer)
    library.WebPIDecode.argtypes = (c_char_p, c_size_t, pointer)
    library.WebPIDecode.restype = c_void_p
    library.WebPIUpdate.argtypes = (c_void_p, c_char_p, c_size_t)
    library.WebPIDecGetRGB.argtypes = (c_void_p, POINTER(c_int), c_void_p, c_void_p, c_void_p)
    library.WebPIDecGetRGB.restype = c_void_p
    library.WebPIDelete.argtypes = (c_void_p,)
    return library
