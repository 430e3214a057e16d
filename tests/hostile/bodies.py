"""What the attacks send: small files and documents that are made to cost far more than they weigh."""

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

MIB = 2**20
BOUNDARY = b"hostile"


@cache
def photo() -> bytes:
    """What an honest client sends: a photo of 480 by 360 pixels."""
    rng = np.random.default_rng(7)
    ramp = np.linspace(20, 230, 480)[None, :, None] + rng.normal(0, 6, (360, 480, 3))
    return saved(Image.fromarray(ramp.clip(0, 255).astype(np.uint8)), "JPEG", quality=88)


@cache
def scans() -> bytes:
    """A progressive JPEG of a thousand scans, with a comment between them that holds an end marker."""
    data = saved(Image.new("RGB", (1600, 1600), (90, 120, 150)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    comment = b"\xff\xfe\x00\x04\xff\xd9"
    return data[:last] + comment + data[last:-2] * 1000 + data[-2:]


@cache
def huge_progressive() -> bytes:
    """Fifty megapixels in as many scans as encoders make."""
    return saved(Image.new("RGB", (8600, 5800), "grey"), "JPEG", progressive=True)


@cache
def flat_png(width: int = 5400, height: int = 5400) -> bytes:
    """Some thirty megapixels in a hundred kilobytes."""
    return saved(Image.new("RGB", (width, height), (200, 210, 220)), "PNG")


@cache
def chunks() -> bytes:
    """A PNG of as many empty chunks as a file may hold."""
    data = saved(Image.new("RGB", (64, 64), "white"), "PNG")
    empty = struct.pack(">I", 0) + b"teXt" + struct.pack(">I", zlib.crc32(b"teXt"))
    return data[:33] + empty * 800_000 + data[33:]


@cache
def profiles(seed: int) -> bytes:
    """A WebP whose profile has megabytes, no two alike."""
    noise = np.random.default_rng(seed).bytes(4 * MIB)
    head = struct.pack(">I", len(noise)) + noise[4:36] + b"acsp" + noise[40:]
    return saved(Image.new("RGB", (64, 64), "white"), "WEBP", icc_profile=head)


@cache
def metadata() -> bytes:
    """A WebP with an EXIF block of a hundred thousand broken entries."""
    entries = b"".join(struct.pack("<HHII", 0x9000 + i % 4096, 9, 2**30, 2**31 + i) for i in range(60_000))
    return saved(
        Image.new("RGB", (64, 64), "white"),
        "WEBP",
        exif=b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 60_000) + entries,
    )


def vertex(instances: bytes) -> bytes:
    """A Vertex AI request around `instances`."""
    return b'{"instances":[' + instances + b"]}"


@cache
def vertex_bombs() -> tuple[bytes, ...]:
    """Documents that a parser makes hundreds of megabytes of."""
    return (
        vertex(b"1," * (4 * MIB) + b"1"),
        vertex(b"{}," * MIB + b"{}"),
        vertex(b'"",' * MIB + b'""'),
        b"[" * (4 * MIB),
        vertex(b"1" * (8 * MIB)),
        vertex(b'{"b64":"' + b"A" * (16 * MIB) + "\U0001f600".encode() + b'"}'),
    )


@cache
def v2_bombs() -> tuple[tuple[bytes, dict[str, str]], ...]:
    """The same in the Open Inference Protocol, with headers."""
    tensor = b'{"name":"image","datatype":"BYTES","shape":[1],%s}'
    raw = bytes(8 * MIB)
    head = b'{"inputs":[' + tensor % (b'"parameters":{"binary_data_size":%d}' % len(raw)) + b"]}"
    small = b'{"inputs":[' + tensor % b'"data":["QUJD"]'
    return (
        (head + raw, {"Inference-Header-Content-Length": str(len(head))}),
        (b'{"inputs":[' + tensor % (b'"data":[' + b"1," * (2 * MIB) + b"1]") + b"]}", {}),
        (small + b'],"outputs":[' + b'{"name":"nothing of ours"},' * 200_000 + b'{"name":"x"}]}', {}),
        (small + b"]}", {"Inference-Header-Content-Length": "9" * 5000}),
    )


def form(*files: bytes, field: str = "file") -> bytes:
    """A multipart body of these files."""
    parts = [
        b"--%s\r\nContent-Disposition: form-data; name=%s; filename=x\r\n\r\n" % (BOUNDARY, field.encode())
        + data
        + b"\r\n"
        for data in files
    ]
    return b"".join(parts) + b"--%s--\r\n" % BOUNDARY


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """An image as a file of `kind`."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
