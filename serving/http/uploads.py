"""Untrusted multipart bodies to bytes in memory: streamed, counted and timed, never spooled to disk."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serving.http.problems import ProblemError, shown
from serving.settings import ENVELOPE_BYTES

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_BOUNDARY_BYTES: Final = 70
"""As RFC 2046 has it."""

_MOST_PARTS: Final = 64
"""Parts of any name in one body; the rest of a form is no business of ours."""


@dataclass(slots=True)
class Upload:
    """One received file."""

    filename: str
    data: bytes = b""
    too_large: bool = False
    """Its bytes passed the limit and were dropped as they came."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly a body may come: in each `window_s`, `least_bytes` of it or its end."""

    window_s: float
    least_bytes: int


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one body may hold."""

    field: str
    most_files: int
    max_file_bytes: int
    max_body_bytes: int
    pace: Pace


class BodyBudget:
    """Bytes that all bodies being received may hold together, so that many slow ones cannot fill the memory.

    No client may hold more than is left free: one alone can have half of all, a second a third, and so on; there is
    always room for another one.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0
        self._held_by: dict[str, int] = {}

    @contextmanager
    def account(self, client: str) -> Iterator["BodyAccount"]:
        """An account of one body of `client`; closing it gives its bytes back."""
        account = BodyAccount(self, client)
        try:
            yield account
        finally:
            self._held -= account.held
            left = self._held_by.pop(client, 0) - account.held
            if left > 0:
                self._held_by[client] = left

    def take(self, client: str, size: int) -> None:
        """Count `size` more bytes.

        Raises:
            ProblemError: `overloaded`.
        """
        own = self._held_by.get(client, 0) + size
        if own > self._max_bytes - self._held:
            raise ProblemError("overloaded", "too many bodies are being received at once; try again")
        self._held_by[client] = own
        self._held += size


@dataclass(slots=True)
class BodyAccount:
    """Bytes one body holds of a budget."""

    budget: BodyBudget
    client: str
    held: int = 0

    def take(self, size: int) -> None:
        """Count `size` more bytes of this body."""
        self.budget.take(self.client, size)
        self.held += size


async def read_body(request: Request, account: BodyAccount, max_bytes: int, pace: Pace) -> bytearray:
    """The whole body in memory, for the JSON dialects.

    Raises:
        ProblemError: too large, too slow, cut off.
    """
    body = bytearray()
    await _receive(request, account, max_bytes, pace, body.extend)
    return body


async def read_files(request: Request, account: BodyAccount, limits: UploadLimits) -> list[Upload]:
    """The files of a multipart body, in order; a file over the limit is marked, not kept.

    Raises:
        ProblemError: another content type, a damaged body, no such field, too many files, too large, too slow.
    """
    form = _Form(limits)
    try:
        parser = MultipartParser(_boundary(request, limits.field), form.callbacks())
        await _receive(request, account, limits.max_body_bytes + ENVELOPE_BYTES, limits.pace, parser.write)
        parser.finalize()
    except FormParserError as error:
        raise ProblemError("malformed_request", f"the multipart body is damaged: {shown(str(error))}") from error
    return form.uploads()


async def _receive(
    request: Request, account: BodyAccount, max_bytes: int, pace: Pace, sink: Callable[[bytes], object]
) -> None:
    received = in_window = 0
    try:
        async with asyncio.timeout(pace.window_s) as window:
            more = True
            # not `request.stream()`: the loop has to register every asynchronous generator it meets
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ProblemError("malformed_request", "the client went away before its body was complete")
                chunk: bytes = message.get("body", b"")
                more = message.get("more_body", False)
                received += len(chunk)
                in_window += len(chunk)
                if received > max_bytes:
                    raise ProblemError("request_too_large", f"the body has more than {max_bytes:,} bytes, the limit")
                account.take(len(chunk))
                sink(chunk)
                if in_window >= pace.least_bytes:
                    in_window = 0
                    window.reschedule(asyncio.get_running_loop().time() + pace.window_s)
    except TimeoutError as error:
        detail = f"less than {pace.least_bytes:,} bytes of the body came within {pace.window_s:g} s"
        raise ProblemError("body_timeout", detail) from error


class _Form:
    """Collects the wanted parts of a multipart body as the parser meets them."""

    def __init__(self, limits: UploadLimits) -> None:
        self._limits = limits
        self._parts = 0
        self._seen: list[str] = []
        self._wanted: list[Upload] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._current: Upload | None = None
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._complete = False

    def callbacks(self) -> "MultipartCallbacks":
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header_name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def uploads(self) -> list[Upload]:
        """The files, once the body is complete."""
        field = self._limits.field
        if not self._complete:
            raise ProblemError("malformed_request", "the multipart body ends before its closing boundary")
        if not self._wanted:
            names = ", ".join(self._seen) or "nothing"
            raise ProblemError("missing_file", f"no file in the field `{field}`; the body has: {names}")
        return self._wanted

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise ProblemError("malformed_request", f"the multipart body has more than {_MOST_PARTS} parts")
        self._disposition = b""
        self._chunks = []
        self._size = 0

    def _header_end(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode(errors="replace")[:80]
        self._seen.append(name or "a part without a name")
        self._current = None
        if name != self._limits.field:
            return
        if len(self._wanted) == self._limits.most_files:
            most = self._limits.most_files
            raise ProblemError("too_many_files", f"more than {most} {'file' if most == 1 else 'files'} in `{name}`")
        self._current = Upload(options.get(b"filename", b"").decode(errors="replace")[:255])
        self._wanted.append(self._current)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._current is None:
            return
        self._size += end - start
        if self._size > self._limits.max_file_bytes:
            self._current.too_large = True
            self._chunks.clear()
        else:
            self._chunks.append(data[start:end])

    def _part_end(self) -> None:
        if self._current is not None:
            self._current.data = b"".join(self._chunks)
        self._chunks = []

    def _end(self) -> None:
        self._complete = True


def _boundary(request: Request, field_name: str) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise ProblemError(
            "unsupported_media_type", f"send multipart/form-data with the image in the field `{field_name}`"
        )
    boundary = options.get(b"boundary")
    if not boundary or len(boundary) > MAX_BOUNDARY_BYTES:
        raise ProblemError(
            "malformed_request", f"the Content-Type multipart/form-data names no boundary of 1 to {MAX_BOUNDARY_BYTES}"
        )
    return boundary
