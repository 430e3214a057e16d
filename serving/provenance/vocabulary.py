"""Words by which files say how they were made: IPTC's source types and the names of generators."""

import re
from typing import Final

from serving.provenance.record import Declared

SOURCE_TYPES: Final[dict[bytes, Declared]] = {
    b"trainedalgorithmicmedia": "ai_generated",
    b"compositewithtrainedalgorithmicmedia": "ai_edited",
    b"compositesynthetic": "ai_edited",
    b"digitalcapture": "capture",
    b"computationalcapture": "capture",
    b"multiframecomputationalcapture": "capture",
    b"negativefilm": "capture",
    b"positivefilm": "capture",
    b"print": "capture",
}
"""IPTC NewsCodes `digitalsourcetype`, lower case, that say something of generators or cameras; the others (screen
captures, drawings, algorithms without training) say neither."""

_NAMES: Final = (
    rb"adobe firefly",
    rb"automatic1111",
    rb"bing image creator",
    rb"black-forest-labs",
    rb"chatgpt",
    rb"comfyui",
    rb"dall[-\xb7]?e(?: ?[23])?",
    rb"dall\xc2\xb7e",
    rb"diffusionbee",
    rb"draw things",
    rb"easy diffusion",
    rb"fooocus",
    rb"(?:google )?gemini",
    rb"google imagen",
    rb"gpt-(?:4o|image-\d)",
    rb"grok",
    rb"ideogram(?:\.ai)?",
    rb"invokeai",
    rb"leonardo\.ai",
    rb"midjourney",
    rb"novelai",
    rb"openai",
    rb"playground ai",
    rb"recraft",
    rb"sd\.next",
    rb"seedream",
    rb"stability ai",
    rb"stable[ -]diffusion(?:[ -]?(?:xl|webui|\d[\w.]*))?",
)
_NAME: Final = b"(?:" + b"|".join(_NAMES) + b")"

SOFTWARE: Final = re.compile(rb"(?<![\w-])" + _NAME + rb"(?![\w-])", re.IGNORECASE)
"""A generator's name in a field that names the software."""

MADE_WITH: Final = re.compile(
    rb"\s*(?:(?:image |picture )?(?:generated|created|made) (?:by|with|using) )?" + _NAME + rb"[\s.\d]{0,8}\Z",
    re.IGNORECASE,
)
"""The same in a field of free text: only where nothing else stands there, for a caption may speak of a generator."""


def source_type(term: bytes) -> Declared:
    """What a digital source type declares: a bare term or its NewsCodes address, in any case, blanks around it."""
    name = term.strip().rstrip(b"/").rpartition(b"/")[2].rpartition(b":")[2]
    return SOURCE_TYPES.get(name.lower(), "none")
