"""Image bytes in and tensors out of the JSON and binary dialects; pure functions, no I/O.

The binary form is the Open Inference Protocol's binary tensor data extension: a JSON header, whose length the HTTP
header `Inference-Header-Content-Length` says, then the tensors' raw bytes in order.
"""

import binascii
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson

from serving.detector.detector import Judgement
from serving.http.bounded_json import Document, fit, read
from serving.http.decisions import decision_texts
from serving.http.problems import ProblemError, shown
from serving.http.schemas import V2Request, V2Tensor, VertexRequest

BYTES: Final = "BYTES"
INPUT: Final = "image"
OUTPUTS: Final[dict[str, str]] = {
    "prediction": BYTES,
    "probability": "FP64",
    "confidence": BYTES,
    "decision": BYTES,
    "reasons": BYTES,
    "domain": BYTES,
    "provenance": BYTES,
    "image_sha256": BYTES,
}
"""Output tensor -> datatype. Double precision, so that every dialect says the same number; `reasons`, `domain` and
`provenance` are the JSON of the other dialects as text."""

HEADER_LENGTH: Final = "inference-header-content-length"

MOST_DIGITS: Final = 12
"""Of a number of bytes in a header."""

_ESCAPES: Final = (
    (b"\\/", b"/"),
    (b"\\u002b", b"+"),
    (b"\\u002B", b"+"),
    (b"\\u002f", b"/"),
    (b"\\u002F", b"/"),
    (b"\\u003d", b"="),
    (b"\\u003D", b"="),
)
"""How PHP, .NET and others write base64 in JSON."""

_LENGTH: Final = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class ImageBounds:
    """How many images a body may hold, and how large each may be."""

    most: int
    max_bytes: int

    def check_count(self, count: int) -> None:
        """Raises ProblemError `too_many_files`."""
        if count > self.most:
            raise ProblemError("too_many_files", f"{count} images; at most {self.most} a request")

    def check_size(self, size: int, where: str) -> None:
        """Raises ProblemError `file_too_large`."""
        if size > self.max_bytes:
            raise ProblemError("file_too_large", f"{where}: more than {self.max_bytes:,} bytes, the limit for a file")


def decode_base64(text: bytes | memoryview, where: str, bounds: ImageBounds) -> bytes:
    """The bytes of a standard base64 text, also where a JSON writer has escaped some of its characters.

    Raises:
        ProblemError: `invalid_request` or `file_too_large`, naming `where`.
    """
    # escapes make a text longer than what it says; to twice the limit nothing is lost by looking
    bounds.check_size(len(text) * 3 // 8, where)
    try:
        try:
            data = binascii.a2b_base64(text, strict_mode=True)
        except binascii.Error:
            data = binascii.a2b_base64(_without_escapes(text), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise ProblemError("invalid_request", f"{where}: not base64: {shown(str(error))}") from None
    bounds.check_size(len(data), where)
    return data


def _without_escapes(text: bytes | memoryview) -> bytes:
    plain = bytes(text)
    for escaped, character in _ESCAPES:
        plain = plain.replace(escaped, character)
    return plain


def decode_vertex(body: bytearray, bounds: ImageBounds) -> list[bytes]:
    """The images of a Vertex AI request.

    Raises:
        ProblemError: `invalid_request`, naming the member; `too_many_files`, `file_too_large`.
    """
    document = read(body)
    bounds.check_count(_length(document.content, "instances"))
    request = fit(VertexRequest, document.content)
    return [
        decode_base64(document.text(item.b64), f"instances.{index}.b64", bounds)
        for index, item in enumerate(request.instances)
    ]


def decode_v2(body: bytearray, bounds: ImageBounds, header_length: str | None = None) -> tuple[V2Request, list[bytes]]:
    """An inference request and its images.

    Args:
        body: JSON, or JSON followed by raw tensor bytes.
        bounds: of the images; nothing is built for more than these.
        header_length: value of `Inference-Header-Content-Length`; None for plain JSON.

    Raises:
        ProblemError: `invalid_request`, naming the member; `too_many_files`, `file_too_large`.
    """
    length = len(body) if header_length is None else _header_length(header_length, len(body))
    document = read(body, length)
    request = fit(V2Request, document.content)
    tensor = request.inputs[0]
    if tensor.name != INPUT or tensor.datatype != BYTES:
        found = shown(f"`{tensor.name}` {tensor.datatype}")
        raise _invalid(f"inputs.0: send one tensor `{INPUT}` of datatype BYTES, not {found}")
    size = (tensor.parameters or {}).get("binary_data_size")
    raw = memoryview(body)[length:]
    images = _texts(document, tensor, bounds) if size is None else _elements(raw, size, bounds)
    if tensor.shape not in ([len(images)], [len(images), 1]):
        raise _invalid(f"inputs.0.shape: {tensor.shape} does not hold the {len(images)} images of the data")
    if not images:
        raise _invalid("inputs.0: at least one image is required")
    unknown = [output.name for output in request.outputs or [] if output.name not in OUTPUTS]
    if unknown:
        raise _invalid(f"outputs: unknown {shown(', '.join(unknown))}; known are {', '.join(OUTPUTS)}")
    return request, images


def encode_v2(
    head: dict[str, Any],
    request: V2Request,
    judgements: Sequence[Judgement],
) -> tuple[bytes, int | None]:
    """An inference response and the length of its JSON part where raw tensors follow it.

    Args:
        head: `model_name`, `model_version`, `id`.
        request: what was asked; outputs in the order asked for, binary where asked for.
        judgements: of the images, in order.
    """
    rows = [_row(judgement) for judgement in judgements]
    binary_by_default = bool((request.parameters or {}).get("binary_data_output"))
    wanted = {o.name: bool((o.parameters or {}).get("binary_data", binary_by_default)) for o in request.outputs or []}
    outputs: list[dict[str, Any]] = []
    raw = b""
    for name, binary in (wanted or dict.fromkeys(OUTPUTS, binary_by_default)).items():
        tensor: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": [len(rows)]}
        if binary:
            packed = _pack([row[name] for row in rows], OUTPUTS[name])
            tensor["parameters"] = {"binary_data_size": len(packed)}
            raw += packed
        else:
            tensor["data"] = [row[name] for row in rows]
        outputs.append(tensor)
    json = orjson.dumps({**head, "outputs": outputs})
    return json + raw, len(json) if raw else None


def _length(content: Any, member: str) -> int:
    found = content.get(member) if isinstance(content, dict) else None
    return len(found) if isinstance(found, list) else 0


def _header_length(text: str, body: int) -> int:
    digits = len(text) <= MOST_DIGITS and text.isascii() and text.isdigit()
    if not digits or int(text) > body:
        raise _invalid(f"Inference-Header-Content-Length {shown(text)!r} does not fit a body of {body} bytes")
    return int(text)


def _texts(document: Document, tensor: V2Tensor, bounds: ImageBounds) -> list[bytes]:
    data = tensor.data
    if data is None or not all(isinstance(item, str) for item in data):
        raise _invalid("inputs.0.data: a flat list of base64 strings is required")
    bounds.check_count(len(data))
    return [decode_base64(document.text(item), f"inputs.0.data.{index}", bounds) for index, item in enumerate(data)]


def _elements(raw: memoryview, size: Any, bounds: ImageBounds) -> list[bytes]:
    if size != len(raw):
        announced = shown(str(size)) if isinstance(size, int | str) else "no number of"
        raise _invalid(f"inputs.0.parameters.binary_data_size: {announced} bytes announced, {len(raw)} came")
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        bounds.check_count(len(found) + 1)
        end = at + _LENGTH.size
        if end > len(raw):
            raise _invalid("inputs.0: the binary data ends inside an element's length")
        (length,) = _LENGTH.unpack_from(raw, at)
        if end + length > len(raw):
            raise _invalid("inputs.0: the binary data ends inside an element")
        bounds.check_size(length, f"inputs.0: image {len(found)}")
        found.append(bytes(raw[end : end + length]))
        at = end + length
    return found


def _row(judgement: Judgement) -> dict[str, Any]:
    verdict = judgement.verdict
    return {
        "prediction": verdict.prediction,
        "probability": verdict.probability,
        "confidence": verdict.confidence,
        **decision_texts(judgement.conclusion),
    }


def _pack(column: list[Any], datatype: str) -> bytes:
    if datatype != BYTES:
        return np.asarray(column, dtype="<f8").tobytes()
    return b"".join(_LENGTH.pack(len(item)) + item for item in (text.encode() for text in column))


def _invalid(detail: str) -> ProblemError:
    return ProblemError("invalid_request", detail)
