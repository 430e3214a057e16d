"""JSON Schema in words."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from docs.generate.markdown import code

_BOUNDS: Final = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}"}
_WORDS: Final = {"null": "none"}


def kind(schema: Mapping[str, Any], referred: Callable[[str], str]) -> str:
    """The type of a value with its bounds; `referred` says what stands for a reference, by its name."""
    if "$ref" in schema:
        return referred(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return ", ".join(code(value) for value in schema["enum"])
    if "const" in schema:
        return code(schema["const"])
    if "anyOf" in schema:
        return " or ".join(kind(option, referred) for option in schema["anyOf"])
    if schema.get("type") == "array" and "items" in schema:
        return f"list of {kind(schema['items'], referred)}"
    word = str(schema.get("type", "any"))
    bounds = [text.format(f"{schema[name]:g}") for name, text in _BOUNDS.items() if name in schema]
    return ", ".join([_WORDS.get(word, word), *bounds])
