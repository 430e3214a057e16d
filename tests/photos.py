"""Small image files that a photo check can judge wrongly, each with what is right of it."""

import base64
import io
import random
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageCms, PngImagePlugin

from serving.detector.image import decode

SAMPLE: Final = Path(__file__).resolve().parent / "sample64" / "test.parquet"


@lru_cache
def package_pictures() -> tuple[bytes, ...]:
    """Photographs and drawings that come with installed packages: nobody chose them for this product."""
    folders = [Path(str(files(package))) for package in ("sklearn.datasets.images", "matplotlib")]
    found = sorted(path for folder in folders for end in ("jpg", "png") for path in folder.rglob(f"*.{end}"))
    return tuple(path.read_bytes() for path in found)


@dataclass(frozen=True, slots=True)
class Case:
    """A file: shown by browsers exactly (`same_as`) or nearly (`near`) as another one, or to be `refused`."""

    data: bytes
    same_as: str = ""
    near: str = ""
    refused: str = ""
    """The reason's code."""


@lru_cache(maxsize=1)
def photo() -> Image.Image:
    """The first image of sample64's test split, enlarged to 320x240."""
    row = pq.read_table(SAMPLE, columns=["image"]).slice(0, 1).to_pylist()[0]
    small = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    return small.resize((320, 240), Image.Resampling.BICUBIC)


def saved(fmt: str, image: Image.Image | None = None, **options: object) -> bytes:
    """A picture as a file's bytes; the photo unless another is given."""
    buffer = io.BytesIO()
    (image or photo()).save(buffer, fmt, **options)
    return buffer.getvalue()


def pixels(data: bytes, target_px: int | None = None) -> np.ndarray:
    """A file as the detector decodes it, (height, width, 3), in numbers that can be subtracted."""
    return np.asarray(decode(data, target_px=target_px).rgb).astype(np.int16)


def chunk(kind: bytes, body: bytes, broken: bool = False) -> bytes:
    """A chunk of a PNG, with a wrong checksum where `broken`."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ broken)


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with further chunks behind its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    """A JPEG with one more segment behind its JFIF header."""
    return jpeg[:20] + bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body + jpeg[20:]


def with_riff(webp: bytes, kind: bytes, body: bytes) -> bytes:
    """A WebP with one more chunk at its end."""
    grown = webp[8:] + kind + struct.pack("<I", len(body)) + body + bytes(len(body) & 1)
    return b"RIFF" + struct.pack("<I", len(grown)) + grown


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    """One EXIF entry."""
    return struct.pack("<HHI", tag, kind, count) + value


def exif_of(*entries: bytes, after: bytes = b"") -> bytes:
    """An EXIF block of these entries."""
    body = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"Exif\0\0II*\0\x08\0\0\0" + body + after


def turned(orientation: int) -> bytes:
    """An EXIF block that only states an orientation."""
    return exif_of(entry(0x112, 3, 1, struct.pack("<HH", orientation, 0)))


def random_exif(count: int) -> list[bytes]:
    """Blocks with orientation 6 and one to five tags of random types and values."""
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
    tags = [0x10E, 0x10F, 0x110, 0x11A, 0x11B, 0x128, 0x131, 0x132, 0x13E, 0x829A, 0x8827, 0x9000, 0x9003, 0x927C]
    draw = random.Random(2)
    blocks = []
    for _ in range(count):
        found = [(0x112, 3, 1, struct.pack("<H", 6))]
        for tag in draw.sample(tags, draw.randint(1, 5)):
            kind, number = draw.choice(list(sizes)), draw.choice([0, 1, 1, 2, 3, 5])
            found.append((tag, kind, number, draw.randbytes(sizes[kind] * number)))
        found.sort()
        at, entries, after = 8 + 2 + 12 * len(found) + 4, [], b""
        for tag, kind, number, raw in found:
            value = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", at + len(after))
            after += raw if len(raw) > 4 else b""
            entries.append(entry(tag, kind, number, value))
        blocks.append(exif_of(*entries, after=after))
    return blocks


def wide_gamut(gamma: float = 0.0, named: str = "") -> bytes:
    """A Display P3 profile, with a pure power as its curve where `gamma` is not 0, under any name."""
    from serving.detector.image.profiles import _PRIMARIES, _built

    profile = _built(_PRIMARIES[12], gamma)
    return profile.replace("built".encode("utf-16-be"), named.ljust(5)[:5].encode("utf-16-be")) if named else profile


def grey_profile(gamma: float) -> bytes:
    """A profile of greys with a pure power as its curve."""
    from serving.detector.image import profiles

    tags = [(b"desc", profiles._text("grey")), (b"wtpt", profiles._xyz((0.9642, 1.0, 0.8249)))]
    tags.append((b"kTRC", profiles._curve(gamma)))
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for key, value in tags:
        table += key + struct.pack(">II", at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x04300000, b"mntr", b"GRAY", b"XYZ ")
    head = (head + bytes(12) + b"acsp" + bytes(28) + profiles._xyz((0.9642, 1.0, 0.8249))[8:]).ljust(128, b"\0")
    return head + struct.pack(">I", len(tags)) + table + body


def in_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """The same colours, by the numbers of another profile."""
    there = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    found = ImageCms.profileToProfile(
        image, ImageCms.createProfile("sRGB"), there, renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC
    )
    assert found is not None
    return found


@lru_cache(maxsize=1)
def colourful() -> Image.Image:
    """The photo with four patches that a wide gamut moves."""
    image = photo().copy()
    for at, colour in enumerate(((230, 20, 20), (20, 200, 40), (30, 40, 220), (250, 160, 0))):
        image.paste(colour, (at * 80, 120, at * 80 + 80, 240))
    return image


def png16(samples: np.ndarray, colour_type: int, *chunks: bytes) -> bytes:
    """A 16-bit PNG of samples of shape (height, width, channels)."""
    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    head = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + data


@lru_cache(maxsize=1)
def cases() -> dict[str, Case]:
    """Every file by name."""
    made: dict[str, Case] = {}
    for maker in (_metadata, _damage, _colour, _formats):
        made |= maker()
    return made


def _metadata() -> dict[str, Case]:
    jpeg, png, webp = saved("JPEG", quality=90, dpi=(72, 72)), saved("PNG"), saved("WEBP", lossless=True)
    long_text = PngImagePlugin.PngInfo()
    long_text.add_text("workflow", '{"node": 1}' * 120_000, zip=True)
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6"/>'
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    broken_icc = bytearray(saved("PNG", icc_profile=icc))
    broken_icc[broken_icc.index(b"iCCP") + 30] ^= 1
    raw_profile = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n" + b"45786966" * 9)
    made = {
        "plain.jpg": Case(jpeg, "plain.jpg"),
        "plain.png": Case(png, "plain.png"),
        "plain.webp": Case(webp, "plain.png"),
        "turned.jpg": Case(with_segment(jpeg, 0xE1, turned(6)), "turned.jpg"),
        "exif_zeroed.jpg": Case(with_segment(jpeg, 0xE1, b"Exif\0\0" + bytes(40)), "plain.jpg"),
        "orientation_as_byte.jpg": Case(
            with_segment(jpeg, 0xE1, exif_of(entry(0x112, 1, 1, b"\6\0\0\0"))), "plain.jpg"
        ),
        "orientation_9.jpg": Case(with_segment(jpeg, 0xE1, turned(9)), "plain.jpg"),
        "orientation_twice.jpg": Case(
            with_segment(jpeg, 0xE1, exif_of(entry(0x112, 3, 2, struct.pack("<HH", 6, 6)))), "plain.jpg"
        ),
        "turned_and_text_resolution.jpg": Case(
            with_segment(jpeg, 0xE1, exif_of(entry(0x112, 3, 1, b"\6\0\0\0"), entry(0x11A, 2, 4, b"72\0\0"))),
            "turned.jpg",
        ),
        "xmp_orientation_only.jpg": Case(with_segment(jpeg, 0xE1, xmp), "plain.jpg"),
        "second_end_in_comment.jpg": Case(with_segment(jpeg, 0xFE, b"\xff\xd9\xff\xda" * 99), "plain.jpg"),
        "photoshop_garbage.jpg": Case(with_segment(jpeg, 0xED, b"Photoshop 3.0\0" + b"8BIM" * 9), "plain.jpg"),
        "mpf_garbage.jpg": Case(with_segment(jpeg, 0xE2, b"MPF\0" + b"\xff" * 40), "plain.jpg"),
        "text_over_1_mib.png": Case(saved("PNG", pnginfo=long_text), "plain.png"),
        "exif_garbage.png": Case(saved("PNG", exif=b"Exif\0\0garbage!"), "plain.png"),
        "icc_bad_crc.png": Case(bytes(broken_icc), "plain.png"),
        "text_bad_crc.png": Case(with_chunks(png, chunk(b"tEXt", b"a\0b", broken=True)), "plain.png"),
        "short_chunks.png": Case(
            with_chunks(png, *(chunk(kind, b"\0") for kind in (b"gAMA", b"cHRM", b"pHYs", b"iCCP", b"zTXt"))),
            "plain.png",
        ),
        "raw_profile.png": Case(with_chunks(png, raw_profile), "plain.png"),
        "large_icc.png": Case(saved("PNG", icc_profile=icc + bytes(6 << 20)), "plain.png"),
        "exif_garbage.webp": Case(with_riff(webp, b"EXIF", b"II*\0\xff\xff\xff\xff"), "plain.png"),
        "xmp_garbage.webp": Case(with_riff(webp, b"XMP ", b"\xff" * 99), "plain.png"),
    }
    return made | {
        f"exif_{number:03}.jpg": Case(with_segment(jpeg, 0xE1, block), "turned.jpg")
        for number, block in enumerate(random_exif(300))
    }


def _damage() -> dict[str, Case]:
    jpeg, png, webp = saved("JPEG", quality=90, dpi=(72, 72)), saved("PNG"), saved("WEBP", lossless=True)
    waves = saved("JPEG", quality=90, progressive=True)
    stretched = bytearray(png)
    stretched[20:24] = struct.pack(">I", 480)
    stretched[29:33] = struct.pack(">I", zlib.crc32(bytes(stretched[12:29])))

    def cut(data: bytes, share: float) -> bytes:
        return data[: int(len(data) * share)]

    return {
        "progressive.jpg": Case(waves, "progressive.jpg"),
        "end_missing.jpg": Case(jpeg[:-2], "plain.jpg"),
        "end_missing_and_zeros.jpg": Case(jpeg[:-2] + bytes(500), "plain.jpg"),
        "end_missing_progressive.jpg": Case(waves[:-2], "progressive.jpg"),
        "end_missing.png": Case(png[:-12], "plain.png"),
        "trailing_bytes.jpg": Case(jpeg + b"trailer" * 99, "plain.jpg"),
        "trailing_bytes.png": Case(png + b"trailer" * 99, "plain.png"),
        "nine_tenths_missing.jpg": Case(cut(jpeg, 0.1) + bytes(0) + b"\xff\xd9", refused="corrupt"),
        "half_missing.jpg": Case(cut(jpeg, 0.6), refused="corrupt"),
        "half_missing_progressive.jpg": Case(cut(waves, 0.6) + b"\xff\xd9", refused="corrupt"),
        "last_pass_missing_progressive.jpg": Case(cut(waves, 0.85), refused="corrupt"),
        "half_missing.png": Case(cut(png, 0.5), refused="corrupt"),
        "half_missing_but_closed.png": Case(bytes(stretched), refused="corrupt"),
        "half_missing.webp": Case(cut(webp, 0.5), refused="corrupt"),
        "half_missing_lossy.webp": Case(cut(saved("WEBP", quality=90), 0.5), refused="corrupt"),
        "half_missing.gif": Case(cut(saved("GIF"), 0.5), refused="corrupt"),
        "half_missing.avif": Case(cut(saved("AVIF"), 0.5), refused="corrupt"),
        "half_missing.heic": Case(cut(HEIC, 0.7), refused="corrupt"),
        "tiff.jpg": Case(saved("TIFF"), refused="unsupported_type"),
        "bmp.jpg": Case(saved("BMP"), refused="unsupported_type"),
        "text.jpg": Case(b"no picture at all", refused="unsupported_type"),
        "empty.jpg": Case(b"", refused="empty"),
    }


def _colour() -> dict[str, Case]:
    made = {"colourful.png": Case(saved("PNG", colourful()), "colourful.png")}
    for name, profile in (
        ("P3", wide_gamut()),
        ("P3 named sRGB", wide_gamut(named="sRGB ")),
        ("linear", wide_gamut(1)),
    ):
        image = in_profile(colourful(), profile)
        near = Case(saved("PNG", image, icc_profile=profile), near="colourful.png")
        made[f"{name.replace(' ', '_')}.png"] = near
    grey = np.asarray(photo().convert("L")).astype(np.uint16) * 257
    grey[60:150, 80:240] = 0x0100
    shown = np.asarray(photo().convert("L")).copy()
    shown[60:150, 80:240] = 255
    colour = np.asarray(photo()).astype(np.uint16) * 257
    alpha = np.full((240, 320, 1), 65535, np.uint16)
    made |= {
        "grey16_expected.png": Case(saved("PNG", Image.fromarray(shown)), "grey16_expected.png"),
        "grey16_key.png": Case(png16(grey[..., None], 0, chunk(b"tRNS", b"\1\0")), "grey16_expected.png"),
        "colour16.png": Case(png16(colour, 2), "plain.png"),
        "colour16_alpha.png": Case(png16(np.concatenate([colour, alpha], 2), 6), "plain.png"),
        # 0.499 below the next level: rounded, not cut off
        "colour16_between.png": Case(png16((colour.clip(0, 65279) + 200).clip(0, 65535), 2), near="plain.png"),
        "grey.png": Case(saved("PNG", photo().convert("L")), "grey.png"),
        "grey16_alpha.png": Case(png16(np.concatenate([_deep_grey(), alpha], 2), 4), "grey.png"),
    }
    return made


def _deep_grey() -> np.ndarray:
    return (np.asarray(photo().convert("L")).astype(np.uint16) * 257)[..., None]


def _formats() -> dict[str, Case]:
    return {
        "phone.avif": Case(saved("AVIF", quality=95), near="plain.png"),
        "formula.png": Case(saved("PNG", formula()), "formula.png"),
        "formula.webp": Case(saved("WEBP", formula(), lossless=True, exact=True), "formula.png"),
        "formula.avif": Case(LOSSLESS_AVIF, "formula.png"),
        "finest.avif": Case(saved("AVIF", quality=100, subsampling="4:4:4"), near="plain.png"),
        "phone.heic": Case(HEIC, near="small.png"),
        "small.png": Case(saved("PNG", photo().resize((160, 120))), "small.png"),
        "picture.gif": Case(saved("GIF"), near="plain.png"),
        "named.png": Case(saved("JPEG", quality=90, dpi=(72, 72)), "plain.jpg"),
    }


def formula() -> Image.Image:
    """64x48 pixels that every machine computes alike."""
    rows, columns = np.mgrid[0:48, 0:64]
    return Image.fromarray(np.stack([columns * 4, rows * 5, (columns * 3 + rows * 2) % 256], -1).astype(np.uint8))


LOSSLESS_AVIF: Final = base64.b64decode(
    "AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADybWV0YQAAAAAAAAAoaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAAAGxpYmF2aWYA"
    "AAAADnBpdG0AAAAAAAEAAAAeaWxvYwAAAABEAAABAAEAAAABAAABGgAAAsEAAAAoaWluZgAAAAAAAQAAABppbmZlAgAAAAABAABhdjAxQ29sb3IA"
    "AAAAamlwcnAAAABLaXBjbwAAABRpc3BlAAAAAAAAAEAAAAAwAAAAEHBpeGkAAAAAAwgICAAAAAxhdjFDgSAAAAAAABNjb2xybmNseAABAA0AAIAA"
    "AAAXaXBtYQAAAAAAAAABAAEEAQKDBAAAAsltZGF0EgAKCTgVf7+UBDQAgDKxBRAAAN60V8QQl6VqsyRAquzP58bxLTl7JKIFK54xX5Kr67ll22bW"
    "TTyx4ak1r58tZg/aSvMGodpJdRHro8Ji8097pq3At9WYIoJpuNCWZ3vmL9IURGxXYDwwbGFIeJiGC9c3l+pIw0iRWz2WmaWGTEM9ELDvZhMgAvqz"
    "ZBr0+Z/r4RH5J0nOiEggQnnKknc5bxIOjgi68WwNf+xgfU49UcgW4/ltdDE5nRflm8eki7M8BjbSziMHnf+dzM6h5egAWvgjIer4xOpWeY80ckjk"
    "AfjnBRuok9RecS28t37oVfewIgWLL3iOmD7dFokb29ZOZMeZEf9b4l5zVL8cBC5OdnhEhF8yGch3ndXnl+hjCVoTtmy9oBn/iEoKtYDPhOIqw5nR"
    "PPTfuLGcx5vflJ3Wxx+n4EUCs3W0B1USGLbq+mscw+6XS7uI0mFxmVnOTZIN7vDABQr26TfIlJ1hqR+X9QzbfpkjmZZwRdfZkowa5ye6RyjRudTT"
    "SsirgvCSy9MWAdGhAepVC1dYeHUwFOBlQi54kqFwuYkNRnVKA3lXbyG8YhqxTOl46kMh0yiALeRGMS899zKpcluxoZaDTUizypfAxzf/p8CNknL4"
    "mESAwPjc/qqR7e3uc3y/cluGGWgUPFmIeoDv47kzxlBsaS9/BQ78J8C7mOGJCD/m+dO34GfJNdKAl60fbf////////+cPe193hfl2AIkYRwNwNwN"
    "vhHxwUIYIYIRwTyrFynOymLgmFYngC3/////9qgDERA77JZiv2NuLuLuLuLpXqyOruyPSPSPPI//6d0woHUn9GS9//NUVf//6g9P344ZvHGwBZJ+"
    "yfphyMaSfsRau55yF+Vk238Ot/////IXcDGlRNGjrmM6rQpQpQpQQibQsyuyuyrQsqg/+0tLPzmMKr3ExOdI"
)
"""`formula()` by Debian 12's `avifenc --lossless -s 0 formula.png formula.avif` (libavif-bin 0.11.1, aom 3.6.0): RGB
itself in AV1's planes (identity matrix), which Pillow cannot write."""

HEIC: Final = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9j"
    "AAAAAERAAAEAAQAAAAABegABAAAAAAAAAioAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA1mlw"
    "cnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AA"
    "AAMAkAAAAwAAAwAeoBQgeWW6kkprm4CGgwIAAAMAMgAAAwACEGIAAQAHRAHBcrBiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAA"
    "AACgAAAAeAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAjJtZGF0AAACJigBr1QiEo6LwKUDQ40fdJLVPIFLtPkF"
    "RDuUs/NWfGhlUHCP1LUVYy6tmKL2xKcojRoVZYaAnk6YMoI2kxtwPUbUh0/l9iimp6pkiD2QkozO+j/hGxQEFo/brpPErbiMqhpfZeMi0ctK"
    "CBrU+YjQFk/sHTDj/pL6p7M59gVHCK9y0aFVgpsJJLL+RIBcQd7J5YjInOeoPaLzCJ7rP4htNUQtMM6iC3u36EzOwRRnsRTi4iSM0FiDc43m"
    "p/2Q0Ec48r6tfbYt4DoZyehFBqMdxAowtj0F9ogCbin6kHdl59rp/C3Kv6NQobWZXmBgDuPPqyeqLKNHLlLOWMrBkZvPfIto2A6+gi90rJ8H"
    "+spSk57wNDbkm1ac4/RE2oQK1KoJ0ylXD7eUck9UDUKcj972ZwfaqFuMfw+yi/tHT+xMarPqdDDkAnF7zBPPNW1DYHxoNhRUmxhAL3UXQzs+"
    "Noz+phTDup7lQi59o+omR1zVG7QlDeTOq+kFtjzmQ6DNyOk7Na1nqF6BSIWelynk/TcJla87/Ti28mjRPgQixpM3aQvWOvvnJWYj+17xoi1D"
    "6vNNNhCgdgFlS/540TB1Ua6E/Ql7zq61apj6MHXrlPg6ELtCOWX3Gjmv1ZR6UTu2Co9Xwds7edbdsbXSyCZu4awShzxp7sgec1uXvKnQ/U2e"
    "v8wc7tjLoIEUKZrZqRkOJ8PlQSElTvQmuc53jpWvagKPvw9X2VINH8A="
)
"""A HEIC of 160x120 pixels, for no library here writes one."""
