"""The one label map: names to class ids, by name, never by index."""

from typing import Final, Literal

from serving.platform.errors import UnknownLabelError

Label = Literal["real", "ai_generated"]

LABELS: Final[tuple[Label, Label]] = ("real", "ai_generated")
"""Class id -> name. `ai_generated` (id 1) is the positive class everywhere."""

POSITIVE: Final[Label] = "ai_generated"

_ALIASES: Final[dict[str, Label]] = {
    "real": "real",
    "ai_generated": "ai_generated",
    "ai-generated": "ai_generated",
    "ai": "ai_generated",
    "fake": "ai_generated",
}

CLASS_NAMES: Final = tuple(sorted(_ALIASES))
"""Names that stand for a class without being mapped."""


def label_id(name: str) -> int:
    """Class id of a class name or alias, in any letter case: `real` -> 0, `ai_generated`, `FAKE`, `ai` -> 1.

    Raises:
        UnknownLabelError: the name is not known. Guessing here would invert every verdict.
    """
    label = _ALIASES.get(name.strip().lower())
    if label is None:
        raise UnknownLabelError(f"unknown class name {name!r}; known names: {', '.join(CLASS_NAMES)}")
    return LABELS.index(label)
