"""Peak memory of one decode of each format and mode, beside the cost model: `python -m tests.bench.bench_decode`.

Each picture is decoded in a process of its own after a small one of the same kind; the peak is the growth of the
resident set, as the kernel counts it.
"""

import argparse
import io
import json
import multiprocessing
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from serving.detector.image import ImageLimits, decode
from serving.detector.image.decoding import opened

MIB: Final = 1 << 20
_ANY: Final = ImageLimits(max_bytes=1 << 30, max_decode_bytes=1 << 40)

Maker = Callable[[int, int], bytes]


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A photograph-like picture that compresses quickly."""
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 256, (max(2, height // 64), max(2, width // 64), 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BILINEAR).convert(mode)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """A picture as a file's bytes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(width: int, height: int, colour_type: int, key: bytes = b"", gamma: bool = False) -> bytes:
    """A 16-bit PNG of flat rows, which Pillow cannot write."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    row = b"\0" + (np.arange(width * samples, dtype=np.uint64) * 37 % 65536).astype(">u2").tobytes()

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    extra = (chunk(b"tRNS", key) if key else b"") + (chunk(b"gAMA", struct.pack(">I", 100000)) if gamma else b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _wide_gamut() -> bytes:
    from serving.detector.image.profiles import of_code_points

    found = of_code_points(12, 13)
    assert found is not None and found.profile is not None
    return found.profile


def _linear() -> bytes:
    from serving.detector.image.profiles import of_gamma

    found = of_gamma(100_000, None)
    assert found is not None
    return found


def _held_back(width: int, height: int) -> bytes:
    """An animation of a smaller frame behind a still picture."""
    still, frame = picture(width, height), picture(width - 16, height - 16)
    return saved(still, "PNG", save_all=True, default_image=True, append_images=[frame], compress_level=1)


def cases() -> dict[str, tuple[Maker, int | None]]:
    """Name -> how to make it at a size, and the model's side in pixels where reduced scale is allowed."""
    icc, linear = {"icc_profile": _wide_gamut()}, {"icc_profile": _linear()}
    made: dict[str, tuple[Maker, int | None]] = {
        "JPEG": (lambda w, h: saved(picture(w, h), "JPEG"), None),
        "JPEG, profile, turned": (lambda w, h: saved(picture(w, h), "JPEG", exif=_turned(), **icc), None),
        "JPEG, grey": (lambda w, h: saved(picture(w, h, "L"), "JPEG"), None),
        "JPEG, CMYK": (lambda w, h: saved(picture(w, h, "CMYK"), "JPEG"), None),
        "JPEG, progressive 4:4:4": (
            lambda w, h: saved(picture(w, h), "JPEG", progressive=True, subsampling=0),
            None,
        ),
        "PNG": (lambda w, h: saved(picture(w, h), "PNG", compress_level=1), None),
        "PNG, profile, turned": (
            lambda w, h: saved(picture(w, h), "PNG", compress_level=1, exif=_turned(), **icc),
            None,
        ),
        "PNG, alpha": (lambda w, h: saved(_faded(w, h), "PNG", compress_level=1), None),
        "PNG, alpha, profile": (lambda w, h: saved(_faded(w, h), "PNG", compress_level=1, **icc), None),
        "PNG, grey": (lambda w, h: saved(picture(w, h, "L"), "PNG", compress_level=1), None),
        "PNG, grey and alpha": (lambda w, h: saved(_faded(w, h).convert("LA"), "PNG", compress_level=1), None),
        "PNG, black and white": (lambda w, h: saved(picture(w, h, "1"), "PNG"), None),
        "PNG, palette": (lambda w, h: saved(picture(w, h, "L").convert("P"), "PNG", compress_level=1), None),
        "PNG, palette with alpha": (
            lambda w, h: saved(picture(w, h, "L").convert("P"), "PNG", transparency=bytes(range(256))),
            None,
        ),
        "PNG, key colour": (lambda w, h: saved(picture(w, h), "PNG", compress_level=1, transparency=(1, 2, 3)), None),
        "PNG, grey, colour profile": (
            lambda w, h: saved(picture(w, h, "L"), "PNG", compress_level=1, **linear),
            None,
        ),
        "PNG, grey 16 bit, gamma": (lambda w, h: png16(w, h, 0, gamma=True), None),
        "PNG, frame behind a still": (lambda w, h: _held_back(w, h), None),
        "PNG, grey 16 bit": (lambda w, h: png16(w, h, 0), None),
        "PNG, grey 16 bit, key": (lambda w, h: png16(w, h, 0, b"\1\0"), None),
        "PNG, grey 16 bit, alpha": (lambda w, h: png16(w, h, 4), None),
        "PNG, colour 16 bit": (lambda w, h: png16(w, h, 2), None),
        "PNG, colour 16 bit, key": (lambda w, h: png16(w, h, 2, b"\1\0\1\0\1\0"), None),
        "PNG, colour 16 bit, alpha": (lambda w, h: png16(w, h, 6), None),
        "WebP": (lambda w, h: saved(picture(w, h), "WEBP", method=0), None),
        "WebP, alpha": (lambda w, h: saved(_faded(w, h), "WEBP", method=0), None),
        "WebP, lossless": (lambda w, h: saved(picture(w, h), "WEBP", lossless=True, method=0, quality=0), None),
        "WebP, lossless, alpha": (lambda w, h: saved(_faded(w, h), "WEBP", lossless=True, method=0, quality=0), None),
        "GIF": (lambda w, h: saved(picture(w, h, "L").convert("P"), "GIF"), None),
        "AVIF": (lambda w, h: saved(picture(w, h), "AVIF", speed=10, quality=60), None),
        "AVIF 4:4:4": (lambda w, h: saved(picture(w, h), "AVIF", speed=10, quality=60, subsampling="4:4:4"), None),
        "AVIF, alpha": (lambda w, h: saved(_faded(w, h), "AVIF", speed=10, quality=60), None),
    }
    return made


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _faded(width: int, height: int) -> Image.Image:
    image = picture(width, height)
    image.putalpha(Image.linear_gradient("L").resize((width, height)))
    return image


def measure(data: bytes, small: bytes, target_px: int | None) -> tuple[float, float]:
    """Peak growth and the cost model's promise, both in bytes, of one decode in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (data, small, target_px))


def _peak(data: bytes, small: bytes, target_px: int | None) -> tuple[float, float]:
    decode(small, _ANY, target_px)
    promised = opened(data).need_bytes(target_px)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    decode(data, _ANY, target_px)
    return float(_status("VmHWM") - before), float(promised)


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=3000)
    parser.add_argument("--height", type=int, default=2000)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    pixels = arguments.width * arguments.height
    rows = []
    for name, (make, target) in cases().items():
        if arguments.only not in name:
            continue
        peak, promised = measure(make(arguments.width, arguments.height), make(64, 64), target)
        rows.append({"case": name, "peak": round(peak / pixels, 1), "promised": round(promised / pixels, 1)})
        print(f"{name:28} {peak / pixels:6.1f} B/px  promised {promised / pixels:6.1f}", flush=True)
    print(json.dumps({"over": [row["case"] for row in rows if row["peak"] > row["promised"]]}))


if __name__ == "__main__":
    main()
