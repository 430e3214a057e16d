"""How a source calls the two classes: the known names, and those of one's own that a person has mapped."""

import shlex
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from serving.detector.labels import CLASS_NAMES, LABELS, label_id
from serving.platform.errors import UnknownLabelError

_NAMES_SHOWN: Final = 3


class ClassNames:
    """Class names as a source writes them; nothing is guessed.

    Args:
        labels: name of one's own -> `real` or `ai_generated`, as `checked_labels` returns it.
    """

    def __init__(self, labels: Mapping[str, str] | None = None) -> None:
        self.labels = dict(labels or {})
        self._own = {_folded(name): label_id(label) for name, label in self.labels.items()}
        self._met: set[str] = set()

    def knows(self, name: str) -> bool:
        """Whether a name stands for a class."""
        try:
            self.id(name)
        except UnknownLabelError:
            return False
        return True

    def id(self, name: str) -> int:
        """Class id of a name, in any letter case.

        Raises:
            UnknownLabelError: nobody has said which class it is.
        """
        own = self._own.get(_folded(name))
        if own is not None:
            self._met.add(_folded(name))
            return own
        try:
            return label_id(name)
        except UnknownLabelError:
            raise UnknownLabelError(self.unknown([name])) from None

    def unmet(self, names: Iterable[str]) -> list[str]:
        """Which of these mapped names no image had so far."""
        return [name for name in names if _folded(name) not in self._met]

    def unknown(self, names: Sequence[str]) -> str:
        """What is said of names that nobody has mapped: which they are, which are known, and how to map them."""
        shown = names[:_NAMES_SHOWN]
        more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
        quoted = ", ".join(repr(name) for name in shown)
        known = ", ".join(sorted({*CLASS_NAMES, *self.labels}))
        return (
            f"unknown class name {quoted}{more}; known names: {known}; map it: {mapping(shown[:1])} (or ai_generated)"
        )


def mapping(names: Iterable[str]) -> str:
    """Options of `data import` that map these names, for a person to set right."""
    return " ".join(f"--label {shlex.quote(name + '=real')}" for name in names)


def labels_of(options: Iterable[str]) -> dict[str, str]:
    """`--label genuine=real` and so on as a mapping.

    Raises:
        ValueError: a text that is no NAME=CLASS, or a name that is mapped twice.
    """
    pairs = []
    for option in options:
        name, equals, label = option.rpartition("=")
        if not equals or not name.strip() or not label.strip():
            raise ValueError(f"{option!r}: write NAME=CLASS, e.g. --label genuine=real")
        pairs.append((name, label))
    return checked_labels(pairs)


def checked_labels(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Mapped names without surrounding spaces, each with the project's name of its class.

    Raises:
        ValueError: an unknown class, a name that is mapped twice, or `real` and `ai_generated` turned round.
    """
    found: dict[str, str] = {}
    seen: dict[str, str] = {}
    for given, wanted in pairs:
        name = given.strip()
        try:
            label = LABELS[label_id(wanted)]
        except UnknownLabelError:
            raise ValueError(
                f"{name}={wanted}: {wanted!r} is no class; the classes are {' and '.join(LABELS)}"
            ) from None
        if _folded(name) in seen:
            raise ValueError(f"{name!r} is mapped twice: to {seen[_folded(name)]} and to {label}; keep one")
        if name.lower() in LABELS and name.lower() != label:
            raise ValueError(
                f"{name}={label}: {name!r} is itself a class and cannot mean the other one; rename the folder"
            )
        found[name] = seen[_folded(name)] = label
    return found


def _folded(name: str) -> str:
    if name.isascii():
        return name.strip().lower()
    # an accent is one character here and two there: folders of macOS, keyboards
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name.strip()).casefold())
