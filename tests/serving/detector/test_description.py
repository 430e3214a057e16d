"""HEIC and AVIF that list more than a picture has: refused before their decoders, whose time grows with the square."""

import struct

import pytest

from serving.detector.image import decode
from serving.platform.errors import ImageRefusedError
from tests.photos import photo, saved

EMPTY = b"\0\0\0\0"


def box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def tiled(brand: bytes, tiles: int, filling: bytes = b"") -> bytes:
    """The head of a picture of so many tiles, and no pixels."""
    items = b"".join(box(b"infe", b"\2\0\0\0" + struct.pack(">HH", n, 0) + b"av01\0") for n in range(1, tiles + 1))
    parts = EMPTY + box(b"pitm", EMPTY + b"\0\1") + filling + box(b"iinf", EMPTY + struct.pack(">H", tiles) + items)
    return box(b"ftyp", brand + EMPTY + b"mif1" + brand) + box(b"meta", parts)


@pytest.mark.parametrize("brand", [b"avif", b"heic"])
@pytest.mark.parametrize(
    ("tiles", "filling"),
    [
        (60_000, b""),
        (60_000, box(b"free", b"") * 5_000),
        (1, box(b"iref", EMPTY + box(b"dimg", bytes(120_000)))),
        (1, box(b"iprp", box(b"ipco", box(b"irot", b"\0") * 20_000))),
        (1, box(b"iprp", box(b"ipco", box(b"colr", b"") * 20_000))),
        (1, box(b"grpl", box(b"altr", bytes(8)) * 5_000)),
    ],
    ids=["items", "behind-others", "references", "properties", "empty-profiles", "groups"],
)
def test_a_picture_of_tens_of_thousands_of_parts_is_refused(brand: bytes, tiles: int, filling: bytes) -> None:
    with pytest.raises(ImageRefusedError, match="lists more parts than a picture has") as refused:
        decode(tiled(brand, tiles, filling))
    assert refused.value.reason == "corrupt"


def test_what_stands_behind_thousands_of_boxes_is_refused_unseen() -> None:
    picture = saved("AVIF", photo())
    head = int.from_bytes(picture[:4], "big")
    assert decode(picture).info.width == 320
    with pytest.raises(ImageRefusedError, match="lists more parts"):
        decode(picture[:head] + box(b"free", b"") * 5_000 + picture[head:])


def test_a_profile_and_a_thousand_tiles_are_no_long_list() -> None:
    profile = box(b"iprp", box(b"ipco", box(b"colr", b"prof" + bytes(1_000_000))))
    with pytest.raises(ImageRefusedError, match="damaged and cannot be read"):
        decode(tiled(b"avif", 1_000, profile + box(b"idat", bytes(1_000_000))))
