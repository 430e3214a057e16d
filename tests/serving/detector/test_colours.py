"""Colours as a browser shows them: profiles, gamma and code points count, few bits and key colours are read rightly."""

import io

import numpy as np
from PIL import Image

from serving.detector.image import decode
from serving.detector.image.colour import TransformCache
from tests import photos
from tests.photos import chunk, grey_profile, in_profile, photo, pixels, saved, wide_gamut, with_chunks

PNG = saved("PNG")
SHOWN = pixels(PNG)


def test_colours_agree_with_references() -> None:
    image = photos.colourful()
    wanted = np.asarray(image).astype(np.int16)
    for profile in (wide_gamut(), wide_gamut(1.0), wide_gamut(2.2)):
        data = saved("PNG", in_profile(image, profile), icc_profile=profile)
        assert np.abs(pixels(data) - wanted).mean() < 1.0
    cmyk = saved("JPEG", photo().convert("CMYK"), quality=95)
    pillow = Image.open(io.BytesIO(cmyk)).convert("RGB")
    assert np.abs(pixels(cmyk) - np.asarray(pillow)).mean() < 1.0


def test_a_grey_profile_counts_and_so_does_a_colour_profile_of_a_grey_jpeg() -> None:
    linear = grey_profile(1.0)
    grey = photo().convert("L")
    plain, profiled = pixels(saved("PNG", grey)), pixels(saved("PNG", grey, icc_profile=linear))
    # linear numbers are lighter in sRGB
    assert (profiled - plain).mean() > 20
    faded = grey.copy()
    faded.putalpha(255)
    assert np.array_equal(pixels(saved("PNG", faded, icc_profile=linear)), profiled)
    assert (pixels(saved("JPEG", grey, icc_profile=wide_gamut(1.0))) - pixels(saved("JPEG", grey))).mean() > 20


def test_png_gamma_and_code_points_count() -> None:
    import struct

    image = photos.colourful()
    wanted = np.asarray(image).astype(np.int16)
    linear = in_profile(image, wide_gamut(1.0))
    p3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    data = with_chunks(saved("PNG", linear), chunk(b"gAMA", struct.pack(">I", 100_000)), chunk(b"cHRM", p3))
    assert np.abs(pixels(data) - wanted).mean() < 1.0
    coded = with_chunks(saved("PNG", in_profile(image, wide_gamut())), chunk(b"cICP", bytes([12, 13, 0, 1])))
    assert np.abs(pixels(coded) - wanted).mean() < 1.0
    hdr = decode(with_chunks(PNG, chunk(b"cICP", bytes([9, 16, 0, 1]))))
    assert hdr.info.hdr and np.array_equal(np.asarray(hdr.rgb), SHOWN)


def test_key_colours_of_few_bits() -> None:
    import struct
    import zlib

    for depth in (1, 2, 4, 8):
        row = b"\0" + bytes([0b00011011] * 16 * depth)
        head = struct.pack(">IIBBBBB", 128, 32, depth, 0, 0, 0, 0)
        head_and_key = chunk(b"IHDR", head) + chunk(b"tRNS", struct.pack(">H", 1 if depth < 8 else 0b00011011))
        data = b"\x89PNG\r\n\x1a\n" + head_and_key + chunk(b"IDAT", zlib.compress(row * 32)) + chunk(b"IEND", b"")
        reference = Image.open(io.BytesIO(data.replace(chunk(b"tRNS", struct.pack(">H", 1)), b""))).convert("L")
        scaled = 255 // ((1 << depth) - 1) if depth < 8 else 0b00011011
        wanted = np.where(np.asarray(reference) == scaled, 255, np.asarray(reference))
        assert np.array_equal(pixels(data)[..., 0], wanted)


def test_profiles_are_cached_by_digest_within_bounds() -> None:
    cache = TransformCache(max_bytes=2_000_000)
    base = wide_gamut()
    for number in range(50):
        padded = base + bytes([number]) * 100_000
        assert cache.get(padded, "RGB") is not None
        assert cache.held_bytes <= 2_000_000
    assert cache.get(base, "RGB") is cache.get(base, "RGB")
    large = saved("PNG", icc_profile=base + bytes(5 << 20))
    assert np.array_equal(pixels(large), SHOWN)
