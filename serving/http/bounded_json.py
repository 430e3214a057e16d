"""JSON bodies that carry images: their long texts are taken out before the rest, bounded, is parsed.

A parser builds an object for each value and a string for each text: half a megabyte of `[1,1,...]` becomes hundreds of
megabytes, and so does base64 with one emoji in it. Here texts longer than `LONG` stay bytes of the body (they are found
by the quotes around them, at memory speed), and what remains has at most `MAX_REST_BYTES`.
"""

from dataclasses import dataclass
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from serving.http.problems import ProblemError, shown
from serving.platform.errors import plain

LONG: Final = 512
"""Bytes from which a text is taken out."""

MAX_REST_BYTES: Final = 64 * 1024
"""What a body may have beside its long texts."""

MOST_TEXTS: Final = 8 * 1024
"""Texts in a body, member names included."""

MOST_ESCAPES: Final = 512
"""Backslashes in a row."""

_MARK: Final = "\0"

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed body; long texts stand in `content` as marks that `text` resolves."""

    content: Any
    texts: list[memoryview]

    def text(self, value: str) -> bytes | memoryview:
        """A text's bytes; those of a long one as they stood in the body, escapes included."""
        return self.texts[int(value[1:])] if value.startswith(_MARK) else value.encode()


def read(body: bytes | bytearray, length: int | None = None) -> Document:
    """Parse a body, or its first `length` bytes.

    Raises:
        ProblemError: `invalid_request`: no JSON, or more around its long texts than is allowed.
    """
    length = len(body) if length is None else length
    rest, texts = _take_out(body, length) if length > LONG else (bytes(body[:length]), [])
    # a mark of the client's own would be taken for one of ours
    if rest.count(b"\\u0000") != len(texts):
        raise _invalid("a text has a NUL character")
    try:
        return Document(orjson.loads(rest), texts)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"not JSON: {shown(error.msg)}") from None


def fit(model: type[Model], content: Any) -> Model:
    """A parsed body as a schema.

    Raises:
        ProblemError: `invalid_request`, naming the first member that does not fit.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise ProblemError("invalid_request", f"{shown(where)}: {shown(plain(first))}") from None


def _take_out(body: bytes | bytearray, length: int) -> tuple[bytes, list[memoryview]]:
    """The body without its long texts, and those."""
    if body.count(b'"', 0, length) > 2 * MOST_TEXTS:
        raise _invalid(f"more than {MOST_TEXTS:,} texts; nothing here needs as many")
    view = memoryview(body)
    rest: list[bytes | memoryview] = []
    texts: list[memoryview] = []
    at = 0
    while (start := body.find(b'"', at, length)) >= 0:
        end = _end_of_text(body, start + 1, length)
        if end - start - 1 > LONG:
            rest += [view[at:start], b'"\\u0000%d"' % len(texts)]
            texts.append(view[start + 1 : end])
        else:
            rest.append(view[at : end + 1])
        at = end + 1
    rest.append(view[at:length])
    if sum(map(len, rest)) > MAX_REST_BYTES:
        raise _invalid(f"more than {MAX_REST_BYTES:,} bytes beside its long texts, the limit")
    return b"".join(rest), texts


def _end_of_text(body: bytes | bytearray, at: int, length: int) -> int:
    """Offset of the quote that ends the text which begins at `at`."""
    while (end := body.find(b'"', at, length)) >= 0:
        before = body[max(at, end - MOST_ESCAPES) : end]
        escapes = len(before) - len(before.rstrip(b"\\"))
        if escapes == MOST_ESCAPES:
            raise _invalid(f"more than {MOST_ESCAPES} backslashes in a row")
        if escapes % 2 == 0:
            return end
        at = end + 1
    raise _invalid("not JSON: it ends inside a text")


def _invalid(what: str) -> ProblemError:
    return ProblemError("invalid_request", f"body: {what}")
