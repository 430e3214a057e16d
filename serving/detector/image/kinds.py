"""What a file is, judged by its bytes whatever its name or a header claims."""

from dataclasses import dataclass
from typing import Final, Literal

ImageFormat = Literal["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"]

HEAD_BYTES: Final = 4096
"""As much of a file's beginning as decides its kind."""

_AVIF: Final = frozenset({b"avif", b"avis"})
_HEIF: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})

_PICTURES: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"\xff\x0a", "JPEG XL picture"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL picture"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000 picture"),
    (8, b"CR\x02\0", "Canon raw photo"),
    (0, b"FUJIFILMCCD-RAW", "Fujifilm raw photo"),
    (0, b"IIU\0", "Panasonic raw photo"),
    (0, b"IIRO", "Olympus raw photo"),
    (0, b"IIRS", "Olympus raw photo"),
    (0, b"MMOR", "Olympus raw photo"),
    (0, b"FOVb", "Sigma raw photo"),
    (0, b"II*\0", "TIFF picture"),
    (0, b"MM\0*", "TIFF picture"),
    (0, b"II+\0", "TIFF picture"),
    (0, b"MM\0+", "TIFF picture"),
    (0, b"BM", "BMP picture"),
    (0, b"8BPS", "Photoshop file"),
    (0, b"\0\0\x01\0", "icon (ICO)"),
    (0, b"icns", "icon (ICNS)"),
    (0, b"qoif", "QOI picture"),
    (0, b"DDS ", "DDS texture"),
    (0, b"v/1\x01", "OpenEXR picture"),
    (0, b"#?RADIANCE", "Radiance HDR picture"),
    (0, b"gimp xcf", "GIMP file"),
)
_OTHERS: Final[tuple[tuple[int, bytes, str], ...]] = (
    (0, b"%PDF", "PDF document"),
    (0, b"%!PS", "PostScript file"),
    (0, b"PK\x03\x04", "ZIP archive or office document"),
    (0, b"\x1f\x8b", "gzip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "7-Zip archive"),
    (0, b"Rar!", "RAR archive"),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska video"),
    (8, b"AVI ", "AVI video"),
    (8, b"WAVE", "sound file"),
    (0, b"ID3", "sound file"),
    (0, b"OggS", "Ogg file"),
    (0, b"\xd0\xcf\x11\xe0", "office document or thumbnail store"),
    (0, b"SQLite format 3\0", "SQLite database"),
    (0, b"PAR1", "Parquet file"),
    (0, b"\x7fELF", "program"),
    (0, b"MZ", "program"),
)
_MARKUP: Final = ((b"<svg", "SVG drawing"), (b"<html", "HTML page"), (b"<!doctype html", "HTML page"))
_RAW_TAGS: Final = {0xC612: "DNG raw photo", 0x014A: "TIFF picture or camera raw photo"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A file's kind in words."""

    name: str
    """`JPEG picture`, `TIFF picture`, `text`, `file of an unknown kind`."""
    picture: bool
    """Somebody who has it would call it a picture, whether or not it is accepted."""
    format: ImageFormat | None
    """Set where it is accepted."""

    @property
    def article(self) -> str:
        """The name with its indefinite article."""
        return f"{'an' if self.name[0] in 'AEIOUaeiou' or self.name[:3] in ('HTM', 'SVG') else 'a'} {self.name}"


def sniff(data: bytes) -> ImageFormat | None:
    """The accepted format by magic bytes; None for anything else."""
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    return _by_brand(data) if data[4:8] == b"ftyp" else None


def kind_of(data: bytes) -> Kind:
    """The kind of a file by its first `HEAD_BYTES` (more do no harm), in words."""
    fmt = sniff(data)
    if fmt is not None:
        return Kind(f"{fmt} picture", True, fmt)
    if not data:
        return Kind("empty file", False, None)
    for table, picture in ((_PICTURES, True), (_OTHERS, False)):
        for at, magic, name in table:
            if data.startswith(magic, at):
                return Kind(_tiff_kind(data) if name == "TIFF picture" else name, picture, None)
    if data[4:8] == b"ftyp":
        raw = data[8:11] == b"crx"
        return Kind("Canon raw photo" if raw else "video or other ISO media file", raw, None)
    return _text_kind(data[:HEAD_BYTES])


def _by_brand(data: bytes) -> ImageFormat | None:
    length = min(int.from_bytes(data[:4], "big"), 256)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, length, 4))]
    if brands[0] in _AVIF:
        return "AVIF"
    if brands[0] in _HEIF:
        return "HEIF"
    # a general brand: what it is compatible with decides
    if brands[0] in (b"mif1", b"msf1", b"miaf"):
        found = next((brand for brand in brands if brand in _AVIF or brand in _HEIF), None)
        return None if found is None else "AVIF" if found in _AVIF else "HEIF"
    return None


def _tiff_kind(data: bytes) -> str:
    """TIFF holds most cameras' raw files too; the tags of its first directory tell some of them."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    at = int.from_bytes(data[4:8], order)
    entries = min(int.from_bytes(data[at : at + 2], order), 64)
    tags = {int.from_bytes(data[at + 2 + 12 * i : at + 4 + 12 * i], order) for i in range(entries)}
    return next((name for tag, name in _RAW_TAGS.items() if tag in tags), "TIFF picture")


def _text_kind(head: bytes) -> Kind:
    lowered = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for start, name in _MARKUP:
        if lowered.startswith(start) or (lowered.startswith(b"<?xml") and start in lowered):
            return Kind(name, name == "SVG drawing", None)
    printable = sum(byte >= 32 or byte in b"\t\r\n" for byte in head)
    if printable == len(head) and b"\x7f" not in head:
        return Kind("text", False, None)
    return Kind("file of an unknown kind", False, None)
