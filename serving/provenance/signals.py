"""Statements recognised in metadata blocks: each found by what a generator, an editor or a camera writes, never by its
prompt, of which nothing is kept.

Midjourney, Grok, the TC260 label and Google's credit follow published descriptions and were tried on files written for
the tests only; the others are also what the programs' own readers look for.
"""

import html
import re
from collections.abc import Iterator
from typing import Final

from serving.provenance import exif
from serving.provenance.blocks import Block
from serving.provenance.record import Declared, Source, SourceCode, Where
from serving.provenance.vocabulary import MADE_WITH, SOFTWARE, source_type

FIELD_BYTES: Final = 256
"""So much of a field that names a program or an author is read."""
MAX_DATASETS: Final = 128
MAX_MATCHES: Final = 8
"""Places of one pattern tried in a block; a true statement stands near the first."""

_OPENED: Final = rb"""\s{0,8}(?:=\s{0,8}["']|[^<>]{0,100}>)\s{0,32}"""
"""From a property's name to its value: an attribute or an element."""
_SOURCE_TYPE: Final = re.compile(
    rb"""\s{0,8}(?:=\s{0,8}["']|\s[^<>]{0,100}?resource\s{0,8}=\s{0,8}["']|[^<>]{0,100}>)\s{0,32}([\w:/.#-]{1,160})"""
)
_PROPERTY: Final = re.compile(_OPENED + rb"([^<>\"']{1,120})")
_GOOGLE_CREDIT: Final = re.compile(rb"\s*(made|edited|created) with google ai", re.IGNORECASE)
_AIGC: Final = re.compile(rb"[^{]{0,64}\{.{0,512}?\bLabel\b[^\w-]{0,16}([0-9])", re.DOTALL)
_STEPS: Final = re.compile(
    rb"\d{1,6}\s{0,2}[,;\n]\s{0,4}(?=[A-Z][\w /-]{1,30}: ).{0,512}?\b(?:Sampler: \w|CFG scale: \d|Seed: \d)", re.DOTALL
)
"""A list of settings, not a sentence that happens to speak of steps and seeds."""
_JOB: Final = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SIGNATURE: Final = re.compile(rb"\s*Signature: ?[\w+/=-]{32,}")
_UUID: Final = re.compile(rb"\s*[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\s*\Z", re.IGNORECASE)
_GRAPH: Final = re.compile(rb"\s*(?:(?:prompt|workflow):\s*)?\{", re.IGNORECASE)
_DREAM: Final = re.compile(rb"\s-[sSWHCA]\s?\w")
_ADDRESS: Final = re.compile(_OPENED + rb"(https?:)", re.IGNORECASE)

_INVOKE_KEYS: Final = frozenset((b"invokeai_metadata", b"invokeai_graph", b"invokeai_workflow", b"sd-metadata"))
_GOOGLE: Final[dict[bytes, Declared]] = {b"made": "ai_generated", b"created": "ai_generated", b"edited": "ai_edited"}


def read_block(block: Block) -> Iterator[Source]:
    """Statements of one block."""
    match block.kind:
        case "exif":
            yield from _of_exif(block.body)
        case "xmp":
            yield from _of_xmp(exif.narrow(block.body))
        case "iim":
            yield from _of_iim(block.body)
        case "text":
            yield from _of_png_text(block.key, block.body)
        case "comment":
            yield from _of_free_text(exif.narrow(block.body), "comment")


def names_remote_manifest(xmp: bytes) -> bool:
    """Whether XMP gives the address of a C2PA manifest that is not in the file."""
    return any(_near(b":provenance", _ADDRESS, exif.narrow(xmp)))


def read_manifest_terms(manifest: bytes | bytearray) -> Declared:
    """What source types in an unverified manifest store say; edited where a composite is among them."""
    lowered = bytes(manifest).lower()
    if b"compositewithtrainedalgorithmicmedia" in lowered or b"compositesynthetic" in lowered:
        return "ai_edited"
    if b"digitalsourcetype/trainedalgorithmicmedia" in lowered:
        return "ai_generated"
    return "capture" if re.search(rb"digitalsourcetype/(?:digital|computational)capture", lowered) else "none"


def _of_xmp(body: bytes) -> Iterator[Source]:
    for value in _near(b"igitalSourceType", _SOURCE_TYPE, body):
        declared = source_type(value)
        if declared != "none":
            yield Source("digital_source_type", "xmp", declared)
    for value in _near(b":Credit", _PROPERTY, body):
        yield from _credit(value, "xmp")
    for value in _near(b":CreatorTool", _PROPERTY, body):
        yield from _software(value, "xmp")
    yield from _of_free_text(body, "xmp")


def _of_exif(body: bytes) -> Iterator[Source]:
    found = exif.fields(body)
    if not found:
        return
    text = {tag: exif.narrow(value).strip() for tag, value in found.items()}
    software = text.get(exif.SOFTWARE, b"")
    yield from _software(software, "exif")
    description, artist = text.get(exif.DESCRIPTION, b""), text.get(exif.ARTIST, b"")
    for free in (description, artist):
        if MADE_WITH.match(free[:FIELD_BYTES]):
            yield Source("ai_software", "exif", "ai_generated")
    if _SIGNATURE.match(description) and _UUID.match(artist[:FIELD_BYTES]):
        yield Source("grok_signature", "exif", "ai_generated")
    if text.get(exif.MAKER_NOTE, b"")[:8].lower() == b"fooocus":
        yield Source("fooocus", "exif", "ai_generated")
    comment = exif.comment(found.get(exif.USER_COMMENT, b""))
    for free in (comment, description, *(text.get(tag, b"") for tag in (exif.XP_COMMENT, exif.XP_TITLE))):
        yield from _of_free_text(free, "exif")
    make, model = text.get(exif.MAKE, b""), text.get(exif.MODEL, b"")
    if any(_is_graph(value) for value in (make, model, description, comment)):
        # ComfyUI keeps its graph in the camera's fields of a WebP
        yield Source("comfyui_graph", "exif", "ai_generated")
    elif make and model:
        yield Source("camera", "exif", "capture")
    if exif.XMP in found:
        yield from _of_xmp(found[exif.XMP])


def _of_iim(body: bytes) -> Iterator[Source]:
    """IPTC-IIM datasets of record 2, wherever among Photoshop's resources they begin."""
    at = body.find(b"\x1c\x02")
    for _ in range(MAX_DATASETS):
        if at < 0 or at + 5 > len(body) or body[at] != 0x1C:
            return
        dataset, length = body[at + 2], body[at + 3] << 8 | body[at + 4]
        value = body[at + 5 : at + 5 + length]
        if dataset == 110:
            yield from _credit(value, "iptc")
        elif dataset == 65:
            yield from _software(value, "iptc")
        elif dataset == 120:
            yield from _of_free_text(value, "iptc")
        at += 5 + length


def _of_png_text(key: bytes, body: bytes) -> Iterator[Source]:
    if key in (b"prompt", b"workflow") and _is_graph(body):
        yield Source("comfyui_graph", "text", "ai_generated")
    elif (key in _INVOKE_KEYS and body.lstrip()[:1] == b"{") or (key == b"dream" and _DREAM.search(body[:1024])):
        yield Source("invokeai_metadata", "text", "ai_generated")
    elif key == b"fooocus_scheme":
        yield Source("fooocus", "text", "ai_generated")
    elif (key == b"software" and body.strip().lower() == b"novelai") or (
        key == b"title" and body.strip().lower() in (b"novelai generated image", b"ai generated image")
    ):
        yield Source("novelai", "text", "ai_generated")
    elif key in (b"software", b"creator", b"creatortool"):
        yield from _software(body, "text")
    elif key in (b"author", b"title", b"source") and MADE_WITH.match(body[:FIELD_BYTES]):
        yield Source("ai_software", "text", "ai_generated")
    elif key == b"aigc":
        yield from _tc260(b"AIGC" + body, "text")
    yield from _of_free_text(body, "text")


def _of_free_text(body: bytes, where: Where) -> Iterator[Source]:
    if any(_near(b"Steps: ", _STEPS, body)):
        yield Source("a1111_parameters", where, "ai_generated")
    if b"metadata_scheme" in body and b"fooocus" in body.lower():
        yield Source("fooocus", where, "ai_generated")
    if any(_near(b"Job ID: ", _JOB, body)):
        yield Source("midjourney_job", where, "ai_generated")
    yield from _tc260(body, where)


def _tc260(body: bytes, where: Where) -> Iterator[Source]:
    """The label of GB 45438-2025: 1 generated; 2 and 3 possibly and presumably generated, as a platform found."""
    at = body.find(b"AIGC")
    if at < 0:
        return
    window = html.unescape(body[at + 4 : at + 2048].decode("latin-1")).encode("latin-1", "ignore")
    found = _AIGC.match(window)
    if found and found[1] in b"123":
        yield Source("tc260_aigc", where, "ai_generated" if found[1] == b"1" else "ai_edited")


def _credit(value: bytes, where: Where) -> Iterator[Source]:
    if found := _GOOGLE_CREDIT.match(value):
        yield Source("google_ai_credit", where, _GOOGLE[found[1].lower()])


def _software(value: bytes, where: Where) -> Iterator[Source]:
    if found := SOFTWARE.search(value[:FIELD_BYTES]):
        code: SourceCode = "novelai" if found[0].lower() == b"novelai" else "ai_software"
        yield Source(code, where, "ai_generated")


def _is_graph(body: bytes) -> bool:
    """Whether text is a node graph: a JSON object of ComfyUI's, perhaps after its name."""
    return _GRAPH.match(body) is not None and (b'"class_type"' in body or b'"nodes"' in body)


def _near(needle: bytes, pattern: re.Pattern[bytes], body: bytes) -> Iterator[bytes]:
    """What `pattern` finds right behind each of the first `MAX_MATCHES` places of `needle`.

    A search for plain bytes costs a hundredth of one for a pattern, and no text can make it try a place twice.
    """
    at = body.find(needle)
    for _ in range(MAX_MATCHES):
        if at < 0:
            return
        at += len(needle)
        if found := pattern.match(body, at):
            yield found[found.lastindex or 0]
        at = body.find(needle, at)
