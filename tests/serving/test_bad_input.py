"""Hostile and odd images against the real server: a right answer or a 4xx, bounded memory, ready right after."""

import io
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from serving.detector.image import decode
from serving.platform.errors import ImageRefusedError
from tests.bundles import jpeg
from tests.serving.processes import Server, serve

PEAK_GROWTH_MIB = 150


@pytest.fixture(scope="module")
def server(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(toy_bundle, tmp_path_factory.mktemp("bad") / "log", SLOTS="1") as running:
        warm = post(running, jpeg(200, (1500, 1500)))
        assert warm.status_code == 200
        yield running


def post(server: Server, data: bytes, name: str = "photo.jpg") -> httpx.Response:
    return httpx.post(f"{server.url}/predict", files={"file": (name, data, "image/jpeg")}, timeout=60)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(size: tuple[int, int] = (64, 48), seed: int = 1) -> Image.Image:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(10, 240, size[0])[None, :, None] + rng.normal(0, 4, (size[1], size[0], 3))
    return Image.fromarray(ramp.clip(0, 255).astype(np.uint8))


def png_of(width: int, height: int, colour_type: int, bits: int, rows: Iterator[bytes]) -> bytes:
    """A PNG written by hand, so that its header can say anything."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for row in rows) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def bomb() -> bytes:
    """177 megapixels of black in half a megabyte."""
    side = 13_304
    found = png_of(side, side, 2, 8, (bytes(1 + 3 * side) for _ in range(side)))
    assert len(found) < 600_000
    return found


def sized_jpeg(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size than its data has."""
    data = bytearray(jpeg(120))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def many_scans() -> bytes:
    """A progressive JPEG that repeats one of its scans a hundred times."""
    data = saved(picture((800, 800)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 100 + data[-2:]


def animated(kind: str, **options: object) -> bytes:
    return saved(
        picture(seed=1), kind, save_all=True, append_images=[Image.new("RGB", (64, 48), "white")] * 3, **options
    )


REFUSED: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "zero bytes": (lambda: b"", 422, "empty"),
    "text as JPEG": (lambda: b"this is no picture" * 50, 415, "unsupported_type"),
    "truncated JPEG": (lambda: jpeg(120, (400, 400))[:3000], 422, "corrupt"),
    "truncated PNG": (lambda: saved(picture((300, 300)), "PNG")[:3000], 422, "corrupt"),
    "truncated WebP": (lambda: saved(picture((300, 300)), "WEBP")[:1000], 422, "corrupt"),
    "JPEG magic only": (lambda: b"\xff\xd8\xff", 422, "corrupt"),
    "PNG magic only": (lambda: b"\x89PNG\r\n\x1a\n", 422, "corrupt"),
    "JPEG XL named .jpg": (lambda: b"\xff\x0a" + bytes(64), 415, "unsupported_type"),
    "BMP named .jpg": (lambda: saved(picture(), "BMP"), 415, "unsupported_type"),
    "TIFF named .jpg": (lambda: saved(picture(), "TIFF"), 415, "unsupported_type"),
    "177 Mpx PNG": (bomb, 422, "too_many_pixels"),
    "JPEG header 65000x65000": (lambda: sized_jpeg(65000, 65000), 422, "too_many_pixels"),
    "PNG header 65000x65000": (lambda: png_of(65000, 65000, 2, 8, iter([b"\0" * 64])), 422, "too_many_pixels"),
    "50 Mpx alpha PNG": (lambda: png_of(7000, 7000, 6, 8, iter([b"\0" * 64])), 422, "too_many_pixels"),
    "1x1": (lambda: saved(picture((1, 1)), "PNG"), 422, "too_small"),
    "20000x8": (lambda: saved(picture((20000, 8)), "PNG"), 422, "too_small"),
    "100 scans": (many_scans, 422, "corrupt"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_reason(server: Server, name: str) -> None:
    make, status, reason = REFUSED[name]
    data = make()
    spent = server.cpu_s()
    answer = post(server, data)
    assert (answer.status_code, answer.json().get("reason")) == (status, reason)
    assert answer.headers["content-type"] == "application/problem+json"
    assert server.cpu_s() - spent < 3.0
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def srgb_like(data: bytes) -> dict[str, bytes]:
    """An ICC profile that is sRGB in all but its name."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    found = bytes(profile).replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be")).replace(b"sRGB", b"xRGB")
    return {"icc_profile": found}


def test_exif_rotated_and_icc_twins_get_the_same_verdict(server: Server) -> None:
    upright = picture((96, 64))
    plain = post(server, saved(upright, "PNG")).json()
    turned = Image.Exif()
    turned[0x0112] = 6
    rotated = saved(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=turned)
    broken = saved(upright, "PNG", icc_profile=b"not a profile at all")
    profile = saved(upright, "PNG", **srgb_like(b""))
    assert plain["probability"] != post(server, saved(upright.rotate(180), "PNG")).json()["probability"]
    for twin in (rotated, broken):
        assert post(server, twin).json()["probability"] == plain["probability"]
    assert post(server, profile).json()["probability"] == pytest.approx(plain["probability"], abs=0.005)


def test_formats_of_one_picture_agree(server: Server) -> None:
    opaque = picture((80, 60))
    plain = post(server, saved(opaque, "PNG")).json()["probability"]
    faded = opaque.copy()
    faded.putalpha(Image.new("L", opaque.size, 0))
    white = post(server, saved(Image.new("RGB", opaque.size, "white"), "PNG")).json()["probability"]
    assert post(server, saved(opaque, "WEBP", lossless=True)).json()["probability"] == plain
    assert post(server, animated("PNG")).json()["probability"] == pytest.approx(
        post(server, saved(picture(seed=1), "PNG")).json()["probability"]
    )
    assert post(server, animated("WEBP", lossless=True)).json()["probability"] == pytest.approx(
        post(server, saved(picture(seed=1), "PNG")).json()["probability"]
    )
    # what is fully transparent is white, whatever colour hides below
    assert post(server, saved(faded, "PNG")).json()["probability"] == white
    grey = opaque.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    expected = post(server, saved(grey, "PNG")).json()["probability"]
    assert post(server, saved(deep, "PNG")).json()["probability"] == expected
    indexed = opaque.convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    flat = post(server, saved(indexed.convert("RGB"), "PNG")).json()["probability"]
    assert post(server, saved(indexed, "PNG")).json()["probability"] == flat
    assert post(server, saved(indexed, "PNG", transparency=0)).json()["probability"] != flat


def test_cmyk_is_shown_in_its_colours(server: Server) -> None:
    bright = Image.new("RGB", (64, 64), (235, 230, 225)).convert("CMYK")
    answer = post(server, saved(bright, "JPEG", quality=95))
    assert answer.json()["prediction"] == "ai_generated"


def test_peak_memory_is_bounded(server: Server) -> None:
    """The largest pictures that are accepted, one after the other."""
    before = server.peak_mib()
    biggest = {
        "50 Mpx JPEG": saved(Image.new("RGB", (8600, 5800), "grey"), "JPEG"),
        "48 Mpx progressive": saved(Image.new("RGB", (8000, 5900), "grey"), "JPEG", progressive=True),
        "16 Mpx alpha PNG": saved(Image.new("RGBA", (4000, 4000), (9, 99, 199, 99)), "PNG"),
        "8 Mpx alpha WebP": saved(Image.new("RGBA", (2900, 2900), (9, 99, 199, 99)), "WEBP", method=0),
        "177 Mpx PNG": bomb(),
        "20 MB of noise": b"\xff\xd8\xff" + bytes(20 * 2**20),
    }
    found = {name: post(server, data).status_code for name, data in biggest.items()}
    assert found == dict.fromkeys(list(biggest)[:4], 200) | {"177 Mpx PNG": 422, "20 MB of noise": 413}
    assert server.peak_mib() - before < PEAK_GROWTH_MIB
    assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_client_that_leaves_or_stalls_hurts_nobody(toy_bundle: Path, tmp_path: Path) -> None:
    fields = (
        "POST /predict HTTP/1.1",
        "Host: x",
        "Content-Type: multipart/form-data; boundary=b",
        "Content-Length: 99",
    )
    head = "\r\n".join((*fields, "", "")).encode()
    with serve(toy_bundle, tmp_path / "log", SLOTS="1", BODY_TIMEOUT_S="0.5") as running:
        port = int(running.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as leaver:
            leaver.sendall(head + b"--b\r\n")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as staller:
            staller.sendall(head + b"--b\r\n")
            answer = b""
            while b"}" not in answer:
                answer += staller.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"body_timeout" in answer
        assert post(running, jpeg(200)).status_code == 200
        assert running.terminate() == 0
        assert "Traceback" not in running.log


SEEDS = {
    "jpeg": jpeg(128, (40, 40)),
    "progressive": saved(picture((40, 40)), "JPEG", progressive=True),
    "png": saved(picture((40, 40)), "PNG"),
    "palette": saved(picture((40, 40)).convert("P"), "PNG", transparency=3),
    "webp": saved(picture((40, 40)), "WEBP"),
    "exif": saved(picture((40, 40)), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"),
}


@settings(max_examples=300, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    st.floats(0.2, 1.0),
)
def test_damage_anywhere_is_refused_or_decoded_never_a_crash(
    name: str, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(SEEDS[name])
    for place, value in changes:
        data[min(len(data) - 1, int(place * len(data)))] = value
    try:
        decoded = decode(bytes(data[: int(kept * len(data))]), target_px=32)
    except ImageRefusedError as error:
        assert str(error)
    else:
        assert decoded.rgb.mode == "RGB"
