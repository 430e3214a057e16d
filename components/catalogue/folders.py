"""Files of a folder on this disk, all or those of a pattern: in order, each once, as a stream."""

import fnmatch
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from components.catalogue.destination import JOB_FILE, PARTS
from serving.platform.errors import SourceError

MAGIC: Final = "*?["
"""Characters that make a pattern of a path."""

Found = Iterator[tuple[Path, str]]
"""A file, and its name as a person knows it."""


def files_below(root: Path, results: Path | None) -> Found:
    """Every regular file below, whatever its suffix, by its name below `root`.

    Hidden ones, devices, folders met twice, and folders with the results of this job or an earlier one are left out.

    Args:
        root: folder.
        results: folder of this job's results, which may lie in it.

    Raises:
        SourceError: a folder cannot be listed.
    """
    return _Walk(results).of(root, "", 1)


def files_of(pattern: str, results: Path | None) -> Found:
    """The regular files that a glob with `*`, `?`, `[]` or `**` names; also results of earlier jobs, if it names them.

    Raises:
        SourceError: a folder cannot be listed, or no file matches.
    """
    wanted = _Pattern(pattern)
    root = Path(wanted.base or ".").expanduser()
    none = True
    for path, name in _Walk(results, wanted).of(root, "", 1) if root.is_dir() else ():
        none = False
        yield path, name
    if none:
        raise SourceError(f"{pattern}: no file matches; check the path, and write ** for folders below")


class _Pattern:
    """A glob taken apart: the folder that it begins in, and what names below that folder have to be."""

    def __init__(self, pattern: str) -> None:
        parts = pattern.split("/")
        fixed = next(n for n, part in enumerate(parts) if any(c in part for c in MAGIC))
        self.base = "".join(f"{part}/" for part in parts[:fixed])
        self._parts = [None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts[fixed:] if part]
        self.depth = math.inf if None in self._parts else len(self._parts)
        """Folders one in another that are entered."""

    def fits(self, name: str) -> bool:
        """Whether a name below the folder is meant."""
        return self._fits(name.split("/"), self._parts)

    def _fits(self, names: Sequence[str], parts: Sequence[re.Pattern[str] | None]) -> bool:
        if not parts:
            return not names
        first, *rest = parts
        if first is None:
            return any(self._fits(names[skipped:], rest) for skipped in range(len(names) + 1))
        return bool(names) and first.match(names[0]) is not None and self._fits(names[1:], rest)


class _Walk:
    """One walk: it remembers which folders it has been in."""

    def __init__(self, results: Path | None, wanted: _Pattern | None = None) -> None:
        self._wanted = wanted
        self._seen: set[tuple[int, int]] = set()
        if results is not None and results.is_dir():
            self._enters(results)

    def of(self, folder: Path, prefix: str, depth: int) -> Found:
        """The files of a folder and of those below it."""
        wanted = self._wanted
        for item in self._items(folder, prefix):
            name = prefix + item.name
            if item.is_dir():
                if wanted is None or depth < wanted.depth:
                    yield from self.of(Path(item.path), f"{name}/", depth + 1)
            elif item.is_file() and (wanted is None or wanted.fits(name)):
                yield Path(item.path), name if wanted is None else wanted.base + name

    def _items(self, folder: Path, prefix: str) -> list[os.DirEntry[str]]:
        try:
            if not self._enters(folder):
                return []
            with os.scandir(folder) as listing:
                found = sorted((item for item in listing if not item.name.startswith(".")), key=lambda item: item.name)
        except OSError as error:
            raise SourceError(f"{folder}: cannot be listed ({error.strerror}); check its owner and rights") from error
        earlier = prefix and self._wanted is None and {JOB_FILE, PARTS} <= {item.name for item in found}
        return [] if earlier else found

    def _enters(self, folder: Path) -> bool:
        """Whether a folder is met for the first time."""
        found = folder.stat()
        here = (found.st_dev, found.st_ino)
        known = here in self._seen
        self._seen.add(here)
        return not known
