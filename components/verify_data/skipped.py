"""What a source holds beside its images: counted by kind and named, never dropped without a word."""

from collections.abc import Iterable
from typing import Final

from components.verify_data.findings import Skipped

UNREADABLE: Final = "that cannot be read"
"""Of a kind that may well be images: nobody could look."""
NAMES_KEPT: Final = 20
"""Names of each kind that are kept; the count goes on."""


class SkipList:
    """Collects skipped files by kind."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._names: dict[str, list[str]] = {}

    def add(self, name: str, kind: str) -> None:
        """Count a file of this kind."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        names = self._names.setdefault(kind, [])
        if len(names) < NAMES_KEPT:
            names.append(shown(name))

    def found(self) -> list[Skipped]:
        """All kinds, the most frequent first."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return [Skipped(kind=kind, count=count, names=self._names[kind]) for kind, count in ordered]


def sentence(skipped: Iterable[Skipped]) -> str:
    """One line for a person; empty where nothing was skipped."""
    parts: dict[str, list[str]] = {}
    for entry in skipped:
        named = ", ".join(entry.names[:3]) + (", ..." if entry.count > 3 else "")
        why = "left out" if UNREADABLE in entry.kind else "skipped, for they are no images"
        parts.setdefault(why, []).append(f"{entry.count} x {entry.kind} ({named})")
    return " | ".join(f"{why}: {'; '.join(told)}" for why, told in parts.items())


def shown(name: str) -> str:
    """A file's name as text of one line: bytes that are no UTF-8 and control characters are written as escapes."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
