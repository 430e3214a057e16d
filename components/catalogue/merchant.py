"""Google Merchant feeds in XML (RSS 2.0, Atom): read as a stream; no entities, no DTD, bounded in depth and in size."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final
from xml.parsers import expat

from serving.platform.errors import SourceError

ITEMS: Final = frozenset({"item", "entry"})
LINKS: Final = ("image_link", "additional_image_link", "lifestyle_image_link")
NAMES: Final = (*LINKS, "id")
"""Elements of an item that are read, by their names without a namespace: `g:image_link`, `image_link`."""
_GOOGLE: Final = "http://base.google.com/ns/1.0"
_CHUNK: Final = 64 * 1024
_MAX_DEPTH: Final = 32
_MAX_TEXT: Final = 8192
"""Characters of one element; an address has at most 2,000 by Google's own rule."""
_MAX_VALUES: Final = 64
"""Elements of one name in an item that are read."""
_MAX_TOKEN: Final = 2**20
"""Bytes between two events of the parser: a tag or comment that does not end is no feed."""


def items_of(path: Path, handle: IO[bytes]) -> Iterator[dict[str, Any]]:
    """Each product's identity and addresses: `id` a text, the links lists of texts.

    Raises:
        SourceError: not well-formed, nested too deep, or it declares a document type.
    """
    reader = _Reader(path)
    while chunk := handle.read(_CHUNK):
        reader.feed(chunk)
        yield from reader.taken()
    reader.feed(b"", last=True)
    yield from reader.taken()


class _Reader:
    """Turns the parser's events into items; what is no part of one is counted and dropped."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[dict[str, Any]] = []
        self._item: dict[str, Any] | None = None
        self._item_depth = self._depth = 0
        self._name = ""
        self._of_shop = False
        self._text: list[str] = []
        self._length = self._quiet = 0
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        # entities stand in a document type and nowhere else: without one there is nothing to expand or to fetch
        self._parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, chunk: bytes, last: bool = False) -> None:
        """Parse the next bytes.

        Raises:
            SourceError: see `items_of`.
        """
        before = self._parser.CurrentByteIndex
        try:
            self._parser.Parse(chunk, last)
        except (expat.ExpatError, ValueError) as error:
            raise SourceError(f"{self._path}: not well-formed XML ({error})") from error
        self._quiet = 0 if self._parser.CurrentByteIndex > before else self._quiet + len(chunk)
        if self._quiet > _MAX_TOKEN:
            raise SourceError(f"{self._path}: a tag or comment is longer than {_MAX_TOKEN:,} bytes; is this a feed?")

    def taken(self) -> list[dict[str, Any]]:
        """The items that are complete since the last call."""
        found, self._found = self._found, []
        return found

    def _doctype(self, *_: object) -> None:
        raise SourceError(f"{self._path}: declares a document type (<!DOCTYPE>); a product feed needs none")

    def _start(self, name: str, _: object) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise SourceError(f"{self._path}: elements are nested deeper than {_MAX_DEPTH}; is this a feed?")
        namespace, _, local = name.rpartition(" ")
        if self._item is None:
            if local in ITEMS:
                self._item, self._item_depth = {}, self._depth
        elif self._depth == self._item_depth + 1:
            self._name, self._text, self._length = local if local in NAMES else "", [], 0
            self._of_shop = namespace == _GOOGLE

    def _characters(self, text: str) -> None:
        if self._name and self._length < _MAX_TEXT:
            self._text.append(text[: _MAX_TEXT - self._length])
            self._length += len(text)

    def _end(self, _: str) -> None:
        if self._item is not None:
            if self._depth == self._item_depth:
                self._found.append(self._item)
                self._item = None
            elif self._depth == self._item_depth + 1 and self._name:
                self._keep("".join(self._text).strip())
                self._name = ""
        self._depth -= 1

    def _keep(self, text: str) -> None:
        assert self._item is not None
        if self._name == "id":
            # Atom has an id of its own beside the shop's, which is the one that people know the product by
            self._item["id"] = text if self._of_shop else self._item.get("id", text)
        elif text and len(values := self._item.setdefault(self._name, [])) < _MAX_VALUES:
            values.append(text)
