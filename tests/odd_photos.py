"""Photos that are odd in ways that are seldom met, each with what browsers show; see `photos` for the usual ones.

What is said of them here was seen in Chromium; `tests/serving/detector/test_chromium.py` compares it again.
"""

import struct
import zlib
from functools import lru_cache

import numpy as np
from PIL import Image

from tests.odd_jpegs import Plain, of_data, of_exif, of_profiles, of_segments
from tests.photos import (
    Case,
    chunk,
    colourful,
    grey_profile,
    in_profile,
    photo,
    saved,
    turned,
    wide_gamut,
    with_chunks,
    with_riff,
)


@lru_cache(maxsize=1)
def odd_photos() -> dict[str, Case]:
    """Every file by name."""
    image, moved = colourful(), in_profile(colourful(), wide_gamut())
    # or Pillow writes the profile with it
    moved.info.clear()
    exact = {"quality": 95, "subsampling": 0}
    plain = {
        "image.png": saved("PNG", image),
        "image.jpg": saved("JPEG", image, **exact),
        "image.webp": saved("WEBP", image, lossless=True),
        "lossy.webp": saved("WEBP", image, quality=85),
        "other.png": saved("PNG", photo().rotate(180)),
        "grey.png": saved("PNG", image.convert("L")),
        "moved.png": saved("PNG", moved),
        "moved.jpg": saved("JPEG", moved, **exact),
        "sideways.jpg": saved("JPEG", image, exif=turned(6), **exact),
    }
    made = {name: Case(data, name) for name, data in plain.items()}
    for maker in (of_exif, of_segments, of_profiles, of_data, _png_chunks, _png_colours, _png_frames, _webp, _gif):
        made |= maker(plain)
    return made


Chunk = tuple[bytes, bytes]


def _png(chunks: list[Chunk | bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(c if isinstance(c, bytes) else chunk(*c) for c in chunks)


def _parts(png: bytes) -> tuple[Chunk, bytes, bytes]:
    """Header, palette and joined data of a PNG."""
    at, found = 8, list[Chunk]()
    while at < len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        found.append((png[at + 4 : at + 8], png[at + 8 : at + 8 + length]))
        at += 12 + length

    def joined(kind: bytes) -> bytes:
        return b"".join(body for name, body in found if name == kind)

    return found[0], joined(b"PLTE"), joined(b"IDAT")


END: Chunk = (b"IEND", b"")


def _png_chunks(plain: Plain) -> dict[str, Case]:
    png = plain["image.png"]
    head, _, data = _parts(png)
    names = (b"bKGD", b"hIST", b"sBIT", b"tIME", b"sPLT", b"cHRM", b"gAMA", b"cICP", b"eXIf", b"iTXt", b"acTL", b"tRNS")
    made = {
        f"short_{name.decode()}.png": Case(with_chunks(png, chunk(name, b"\1\2\3\4\5")), "image.png") for name in names
    }
    asis: dict[str, list[Chunk | bytes]] = {
        "data_checksum_wrong": [head, chunk(b"IDAT", data, True), END],
        "end_checksum_wrong": [head, (b"IDAT", data), chunk(b"IEND", b"", True)],
        "stream_checksum_missing": [head, (b"IDAT", data[:-4]), END],
        "data_in_pieces": [head, *((b"IDAT", data[i : i + 97]) for i in range(0, len(data), 97)), END],
        "data_begins_empty": [head, (b"IDAT", b""), (b"IDAT", data), END],
        "data_goes_on": [head, (b"IDAT", data + b"more"), END],
        "colours_behind": [head, (b"IDAT", data), (b"gAMA", struct.pack(">I", 100000)), END],
        "profile_behind": [head, (b"IDAT", data), _icc(wide_gamut()), END],
    }
    made |= {f"{name}.png": Case(_png(parts), "image.png") for name, parts in asis.items()}
    # the decoder gives up before it hands its last row out
    made["stream_checksum_wrong.png"] = Case(_png([head, (b"IDAT", data[:-4] + b"abcd"), END]), near="image.png")
    refused: dict[str, list[Chunk | bytes]] = {
        "header_checksum_wrong": [chunk(*head, True), (b"IDAT", data), END],
        "no_data": [head, END],
        "no_header": [(b"IDAT", data), END],
        "depth_3": [(b"IHDR", head[1][:8] + b"\3" + head[1][9:]), (b"IDAT", data), END],
    }
    return made | {f"{name}.png": Case(_png(parts), refused="corrupt") for name, parts in refused.items()}


def _icc(profile: bytes, name: bytes = b"x") -> Chunk:
    return b"iCCP", name + b"\0\0" + zlib.compress(profile)


def _png_colours(plain: Plain) -> dict[str, Case]:
    png, moved, grey = plain["image.png"], plain["moved.png"], plain["grey.png"]
    wide = chunk(*_icc(wide_gamut()))
    bright = chunk(b"gAMA", struct.pack(">I", 100000))
    indexed = saved("PNG", colourful().quantize(64))
    head, palette, data = _parts(indexed)

    def of_palette(*parts: Chunk) -> bytes:
        return _png([head, *parts, END])

    painted, pixels = (b"PLTE", palette), (b"IDAT", data)
    linear = saved("PNG", colourful(), icc_profile=srgb(1.0))
    return {
        "linear.png": Case(linear, "linear.png"),
        "gamma_alone.png": Case(with_chunks(png, bright), near="linear.png"),
        "gamma_of_screens.png": Case(with_chunks(png, chunk(b"gAMA", struct.pack(">I", 45455))), "image.png"),
        "gamma_0.png": Case(with_chunks(png, chunk(b"gAMA", bytes(4))), "image.png"),
        "gamma_and_bad_profile.png": Case(with_chunks(png, chunk(*_icc(wide_gamut()[:60])), bright), near="linear.png"),
        "gamma_and_srgb.png": Case(with_chunks(png, chunk(b"sRGB", b"\0"), bright), "image.png"),
        "grey_linear.png": Case(
            saved("PNG", colourful().convert("L"), icc_profile=grey_profile(1.0)), "grey_linear.png"
        ),
        "grey_gamma.png": Case(with_chunks(grey, bright), near="grey_linear.png"),
        "grey_colour_profile.png": Case(with_chunks(grey, chunk(*_icc(srgb(1.0)))), near="grey_linear.png"),
        "profile_and_gamma.png": Case(with_chunks(moved, wide, bright), near="image.png"),
        "profile_name_too_long.png": Case(with_chunks(moved, chunk(*_icc(wide_gamut(), b"x" * 90))), "moved.png"),
        "profile_of_greys.png": Case(with_chunks(moved, chunk(*_icc(grey_profile(1.0)))), "moved.png"),
        "code_points_before_profile.png": Case(
            with_chunks(moved, chunk(b"cICP", bytes([1, 13, 0, 1])), wide), "moved.png"
        ),
        "code_points_of_video_range.png": Case(with_chunks(moved, chunk(b"cICP", bytes([12, 13, 0, 0]))), "moved.png"),
        "code_points_half_known.png": Case(with_chunks(moved, chunk(b"cICP", bytes([12, 2, 0, 1]))), "moved.png"),
        "code_points.png": Case(with_chunks(moved, chunk(b"cICP", bytes([12, 13, 0, 1]))), near="image.png"),
        "indexed.png": Case(indexed, "indexed.png"),
        "palette_alpha_too_long.png": Case(of_palette(painted, (b"tRNS", bytes(300)), pixels), "indexed.png"),
        "palette_alpha_of_more.png": Case(of_palette(painted, (b"tRNS", bytes(200)), pixels), "white.png"),
        "white.png": Case(saved("PNG", Image.new("RGB", (320, 240), "white")), "white.png"),
        "palette_alpha_before.png": Case(of_palette((b"tRNS", bytes(30)), painted, pixels), "indexed.png"),
        "palette_missing.png": Case(of_palette(pixels), refused="corrupt"),
        "palette_behind.png": Case(of_palette(pixels, painted), refused="corrupt"),
        "palette_of_colour.png": Case(with_chunks(png, chunk(b"PLTE", palette)), "image.png"),
    }


def srgb(gamma: float) -> bytes:
    """sRGB's primaries with a pure power as the curve."""
    from serving.detector.image.profiles import _SRGB_XY, _built

    return _built(_SRGB_XY, gamma)


def _png_frames(plain: Plain) -> dict[str, Case]:
    image, other = colourful(), photo().rotate(180)
    moving = saved("PNG", image, save_all=True, append_images=[other])
    held_back = saved("PNG", image, save_all=True, default_image=True, append_images=[other, photo()])
    small = Image.new("RGB", (320, 240), "white")
    small.paste(other.crop((0, 0, 100, 100)), (40, 60))
    head, _, data = _parts(plain["image.png"])
    _, _, patch = _parts(saved("PNG", other.crop((0, 0, 100, 100))))

    def control(left: int, number: int = 0) -> Chunk:
        return b"fcTL", struct.pack(">5I2H2B", number, 100, 100, left, 60, 1, 10, 0, 0)

    def behind(*parts: Chunk) -> bytes:
        return _png([head, (b"acTL", struct.pack(">2I", 1, 0)), (b"IDAT", data), *parts, END])

    frame = (b"fdAT", struct.pack(">I", 1) + patch)
    interlaced = _interlaced(image)
    return {
        "moving.png": Case(moving, "image.png"),
        "moving_behind_a_still.png": Case(held_back, "other.png"),
        "moving_in_a_corner.png": Case(behind(control(40), frame), "corner.png"),
        "corner.png": Case(saved("PNG", small), "corner.png"),
        "interlaced.png": Case(interlaced, "image.png"),
        "interlaced_half.png": Case(interlaced[: len(interlaced) // 2], refused="corrupt"),
        "interlaced_without_last_pass.png": Case(interlaced[: int(len(interlaced) * 0.55)], refused="corrupt"),
    }


def _interlaced(image: Image.Image) -> bytes:
    pixels, rows = np.asarray(image), b""
    for left, top, across, down in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        rows += b"".join(b"\0" + row.tobytes() for row in pixels[top::down, left::across])
    head = struct.pack(">IIBBBBB", *image.size, 8, 2, 0, 0, 1)
    return _png([(b"IHDR", head), (b"IDAT", zlib.compress(rows)), END])


def _riff(*chunks: Chunk) -> bytes:
    return with_riff_all(b"RIFF\0\0\0\0WEBP", chunks)


def with_riff_all(webp: bytes, chunks: tuple[Chunk, ...]) -> bytes:
    """A WebP with these chunks at its end."""
    for kind, body in chunks:
        webp = with_riff(webp, kind, body)
    return webp


def _webp(plain: Plain) -> dict[str, Case]:
    faded = colourful().copy()
    faded.putalpha(Image.linear_gradient("L").resize(faded.size))
    clear = saved("WEBP", faded, quality=85)
    at = clear.index(b"ALPH")
    length = int.from_bytes(clear[at + 4 : at + 8], "little")
    alpha = (b"ALPH", clear[at + 8 : at + 8 + length])
    at = clear.index(b"VP8 ")
    colours = (b"VP8 ", clear[at + 8 : at + 8 + int.from_bytes(clear[at + 4 : at + 8], "little")])
    lossy = (b"VP8 ", plain["lossy.webp"][20:])
    moved = in_profile(colourful(), wide_gamut())
    moved.info.clear()
    pixels, profile = (b"VP8L", saved("WEBP", moved, lossless=True)[20:]), (b"ICCP", wide_gamut())

    def says(flags: int) -> Chunk:
        return b"VP8X", struct.pack("<I", flags) + (319).to_bytes(3, "little") + (239).to_bytes(3, "little")

    return {
        "unknown_between.webp": Case(_riff(says(0), (b"abcd", bytes(101)), lossy), "lossy.webp"),
        "trailing.webp": Case(plain["lossy.webp"] + b"rubbish" * 99, "lossy.webp"),
        "says_alpha.webp": Case(_riff(says(0x10), lossy), "lossy.webp"),
        "opaque.webp": Case(_riff(says(0), colours), "opaque.webp"),
        "alpha_unsaid.webp": Case(_riff(says(0), alpha, colours), "opaque.webp"),
        "alpha_empty.webp": Case(_riff(says(0x10), (b"ALPH", b""), colours), refused="corrupt"),
        "alpha_short.webp": Case(_riff(says(0x10), (b"ALPH", bytes(100)), colours), refused="corrupt"),
        "profile.webp": Case(_riff(says(0x20), profile, pixels), near="image.png"),
        "profile_unsaid.webp": Case(_riff(says(0), profile, pixels), "moved.png"),
        "profile_cut.webp": Case(_riff(says(0x20), (b"ICCP", wide_gamut()[:300]), pixels), "moved.png"),
        "moving.webp": Case(
            saved("WEBP", colourful(), save_all=True, append_images=[photo()], lossless=True), "image.png"
        ),
        "no_picture.webp": Case(_riff(says(0)), refused="corrupt"),
        "no_keyframe.webp": Case(_riff((b"VP8 ", b"\1" + lossy[1][1:])), refused="corrupt"),
    }


def _gif(_: Plain) -> dict[str, Case]:
    indexed = colourful().quantize(64)
    gif = saved("GIF", indexed, interlace=0)
    size = 3 << ((gif[10] & 7) + 1)
    palette, data = gif[13 : 13 + size], gif[gif.index(b"\x2c\0\0\0\0") + 10 :]
    paint = 0xF0 | (gif[10] & 7)

    def made(
        *parts: bytes, canvas: tuple[int, int] = (320, 240), flags: int = paint, colours: bytes = palette
    ) -> bytes:
        return b"GIF89a" + struct.pack("<HHBBB", *canvas, flags, 0, 0) + colours + b"".join(parts)

    def frame(left: int = 0, top: int = 0, flags: int = 0, own: bytes = b"") -> bytes:
        return b"\x2c" + struct.pack("<HHHHB", left, top, 320, 240, flags) + own + data

    def control(flags: int, key: int) -> bytes:
        return b"\x21\xf9\x04" + bytes([flags, 5, 0, key, 0])

    wide = Image.new("RGB", (400, 300), "white")
    wide.paste(indexed.convert("RGB"), (40, 30))
    return {
        "image.gif": Case(gif, "image.gif"),
        "of_1987.gif": Case(b"GIF87a" + gif[6:], "image.gif"),
        "no_trailer.gif": Case(gif[:-1], "image.gif"),
        "page_behind.gif": Case(gif + b"<script>", "image.gif"),
        "interlaced.gif": Case(saved("GIF", indexed, interlace=1), "image.gif"),
        "own_palette.gif": Case(made(frame(flags=0x80 | paint & 7, own=palette), flags=0x70, colours=b""), "image.gif"),
        "no_palette.gif": Case(made(frame(), flags=0x70, colours=b""), "black.png"),
        "black.png": Case(saved("PNG", Image.new("RGB", (320, 240))), "black.png"),
        "key_beyond.gif": Case(made(control(1, 250) + frame()), "image.gif"),
        "key_taken_back.gif": Case(made(control(1, 3) + control(0, 0) + frame()), "image.gif"),
        "long_comment.gif": Case(made(b"\x21\xfe\xff" + bytes(255) + b"\0" + frame()), "image.gif"),
        "canvas_too_small.gif": Case(made(frame(), canvas=(100, 100)), "image.gif"),
        "canvas_of_nothing.gif": Case(made(frame(), canvas=(0, 0)), "image.gif"),
        "offset.gif": Case(made(frame(40, 30), canvas=(400, 300)), "offset.png"),
        "offset.png": Case(saved("PNG", wide), "offset.png"),
        "no_frame.gif": Case(made(b";"), refused="corrupt"),
    }
