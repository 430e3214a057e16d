"""Where files keep their statements: metadata blocks of JPEG, PNG, WebP, GIF, HEIC and AVIF, found by walking lengths.

Nothing here raises for any bytes. Work is bounded by counts (`MAX_STEPS`, `MAX_BLOCKS`) and by bytes (`MAX_BLOCK_BYTES`
each, `MAX_TOTAL_BYTES` together, inflated ones included), whatever the file claims.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from serving.provenance import isobmff

MAX_STEPS: Final = 4096
"""Segments or chunks walked; encoders that split a picture into 8 KiB chunks stay below it up to 32 MB."""
MAX_BLOCKS: Final = 32
MAX_EXTENSIONS: Final = 4
"""Pieces of extended XMP read of one JPEG."""
MAX_BLOCK_BYTES: Final = 1 << 20
MAX_TOTAL_BYTES: Final = 2 << 20
MAX_MANIFEST_BYTES: Final = 4 << 20

BlockKind = Literal["exif", "xmp", "iim", "text", "comment", "c2pa"]

_EXIF: Final = b"Exif\0\0"
_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_EXTENSION: Final = b"http://ns.adobe.com/xmp/extension/\0"
_PHOTOSHOP: Final = b"Photoshop 3.0\0"
_XMP_KEY: Final = b"xml:com.adobe.xmp"
_RAW_PROFILES: Final[dict[bytes, BlockKind]] = {
    b"raw profile type exif": "exif",
    b"raw profile type app1": "exif",
    b"raw profile type xmp": "xmp",
    b"raw profile type iptc": "iim",
    b"raw profile type 8bim": "iim",
}
_U16: Final = struct.Struct(">H")
_U32: Final = struct.Struct(">I")
_LE32: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Block:
    """One metadata block: plain bytes, inflated where the file had them deflated."""

    kind: BlockKind
    body: bytes
    key: bytes = b""
    """Keyword of a PNG text chunk, lower case."""


@dataclass(slots=True)
class Blocks:
    """The blocks of one file."""

    media_type: str
    """`image/jpeg`, ...; empty where the container is none of those known."""
    found: list[Block] = field(default_factory=list)
    manifest: bytearray = field(default_factory=bytearray)
    """The C2PA manifest store as it stands in the file, at most `MAX_MANIFEST_BYTES` of it."""
    has_manifest: bool = False
    manifest_bytes: int = 0
    """Its whole size."""
    left: int = MAX_TOTAL_BYTES
    extensions: int = 0

    def add(self, kind: BlockKind, body: bytes, key: bytes = b"") -> None:
        """Keep a block, cut to what is still allowed."""
        if len(self.found) < MAX_BLOCKS and self.left > 0 and body:
            body = body[: min(MAX_BLOCK_BYTES, self.left)]
            self.left -= len(body)
            self.found.append(Block(kind, bytes(body), key))

    def add_manifest(self, body: bytes) -> None:
        """Keep a piece of the manifest store."""
        self.has_manifest = True
        self.manifest_bytes += len(body)
        self.manifest += body[: max(0, MAX_MANIFEST_BYTES - len(self.manifest))]


def find_blocks(data: bytes) -> Blocks:
    """All metadata blocks of an image file, in order; none of a file that is no known container."""
    walk = _walk_of(data)
    return Blocks("") if walk is None else walk(data)


def is_known(data: bytes) -> bool:
    """Whether these bytes begin as a container that `find_blocks` walks; in others it looks for nothing."""
    return _walk_of(data) is not None


def _walk_of(data: bytes) -> Callable[[bytes], Blocks] | None:
    if data[:2] == b"\xff\xd8":
        return _jpeg
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _png
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _gif
    return _iso if data[4:8] == b"ftyp" else None


def _jpeg(data: bytes) -> Blocks:
    blocks = Blocks("image/jpeg")
    at = 2
    for _ in range(MAX_STEPS):
        if at + 4 > len(data) or data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker in (0xDA, 0xD9):
            break
        if marker == 0xFF or marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        (length,) = _U16.unpack_from(data, at + 2)
        if marker in (0xE1, 0xEB, 0xED, 0xFE):
            _jpeg_segment(blocks, marker, data[at + 4 : at + 2 + length])
        at += 2 + length
    return blocks


def _jpeg_segment(blocks: Blocks, marker: int, body: bytes) -> None:
    if marker == 0xE1:
        if body.startswith(_EXIF):
            blocks.add("exif", body[len(_EXIF) :])
        elif body.startswith(_XMP):
            blocks.add("xmp", body[len(_XMP) :])
        elif body.startswith(_XMP_EXTENSION) and blocks.extensions < MAX_EXTENSIONS:
            # after the name: 32 characters of digest, the whole length, this piece's offset; depth maps fill hundreds
            blocks.extensions += 1
            blocks.add("xmp", body[len(_XMP_EXTENSION) + 40 :])
    elif marker == 0xEB and body[:2] == b"JP":
        # the box header stands again in every piece after the first
        (sequence,) = _U32.unpack_from(body, 4) if len(body) >= 8 else (1,)
        if blocks.has_manifest or b"c2pa" in body[8:96]:
            blocks.add_manifest(body[8:] if sequence <= 1 else body[16:])
    elif marker == 0xED and body.startswith(_PHOTOSHOP):
        blocks.add("iim", body[len(_PHOTOSHOP) :])
    elif marker == 0xFE:
        blocks.add("comment", body)


def _png(data: bytes) -> Blocks:
    blocks = Blocks("image/png")
    at = 8
    for _ in range(MAX_STEPS):
        if at + 8 > len(data):
            break
        (length,) = _U32.unpack_from(data, at)
        name = data[at + 4 : at + 8]
        if name in (b"tEXt", b"zTXt", b"iTXt"):
            # a byte more than will be kept: a longer chunk need not be copied whole
            _png_text(blocks, name, data[at + 8 : at + 8 + min(length, MAX_BLOCK_BYTES + 256)])
        elif name == b"eXIf":
            blocks.add("exif", data[at + 8 : at + 8 + length])
        elif name == b"caBX":
            blocks.add_manifest(data[at + 8 : at + 8 + length])
        elif name == b"IEND":
            break
        at += 12 + length
    return blocks


def _png_text(blocks: Blocks, name: bytes, body: bytes) -> None:
    key, _, rest = body.partition(b"\0")
    key = key[:79].lower()
    if name == b"zTXt":
        rest = _inflate(rest[1:], blocks.left)
    elif name == b"iTXt":
        deflated = rest[:1] == b"\1"
        parts = rest[2:].split(b"\0", 2)
        rest = parts[2] if len(parts) == 3 else b""
        if deflated:
            rest = _inflate(rest, blocks.left)
    if key in _RAW_PROFILES:
        profile = _unhex(rest)
        kind = _RAW_PROFILES[key]
        if profile.startswith(_XMP):
            kind, profile = "xmp", profile[len(_XMP) :]
        blocks.add(kind, profile.removeprefix(_EXIF))
    elif key == _XMP_KEY:
        blocks.add("xmp", rest)
    else:
        blocks.add("text", rest, key)


def _webp(data: bytes) -> Blocks:
    blocks = Blocks("image/webp")
    at = 12
    for _ in range(MAX_STEPS):
        if at + 8 > len(data):
            break
        name = data[at : at + 4]
        (length,) = _LE32.unpack_from(data, at + 4)
        if name == b"EXIF":
            blocks.add("exif", data[at + 8 : at + 8 + length].removeprefix(_EXIF))
        elif name == b"XMP ":
            blocks.add("xmp", data[at + 8 : at + 8 + length])
        elif name == b"C2PA":
            blocks.add_manifest(data[at + 8 : at + 8 + length])
        at += 8 + length + (length & 1)
    return blocks


def _gif(data: bytes) -> Blocks:
    blocks = Blocks("image/gif")
    # only the first blocks of a GIF are read for its first frame, but its XMP may stand at the end: found by its name
    at = data.find(b"\x21\xff\x0bXMP DataXMP")
    if at >= 0:
        end = data.find(b"\x01\xff\xfe", at)
        blocks.add("xmp", data[at + 14 : end if end >= 0 else at + 14 + MAX_BLOCK_BYTES])
    at = data.find(b"\x21\xfe")
    if at >= 0:
        blocks.add("comment", data[at + 3 : at + 3 + data[at + 2]] if at + 2 < len(data) else b"")
    return blocks


def _iso(data: bytes) -> Blocks:
    brand = data[8:12]
    blocks = Blocks("image/avif" if brand in (b"avif", b"avis") else "image/heic")
    for kind, body in _iso_parts(data):
        if kind == "c2pa":
            blocks.add_manifest(body)
        else:
            blocks.add(kind, body)
    return blocks


def _iso_parts(data: bytes) -> Iterator[tuple[BlockKind, bytes]]:
    for kind, body in isobmff.metadata(data):
        if kind == "exif":
            # four bytes say where the TIFF header begins
            offset = 4 + (_U32.unpack_from(body)[0] if len(body) >= 4 else 0)
            yield "exif", body[offset:].removeprefix(_EXIF)
        else:
            yield kind, body


def _inflate(deflated: bytes, allowed: int) -> bytes:
    """As much of a zlib stream as is readable and allowed."""
    try:
        return zlib.decompressobj().decompress(deflated, max(1, min(MAX_BLOCK_BYTES, allowed)))
    except zlib.error:
        return b""


def _unhex(text: bytes) -> bytes:
    """The bytes of ImageMagick's `Raw profile type ...`: name, length, hexadecimal lines."""
    parts = text.lstrip().split(b"\n", 2)
    digits = b"".join(parts[2].split()) if len(parts) == 3 else b""
    try:
        return bytes.fromhex(digits[: len(digits) & ~1].decode("ascii"))
    except ValueError:
        return b""
