"""Image bytes in and tensors out of the JSON and binary dialects; pure functions, no I/O.

The binary form is the Open Inference Protocol's binary tensor data extension: a JSON header, whose length the HTTP
header `Inference-Header-Content-Length` says, then the tensors' raw bytes in order.
"""

import base64
import binascii
import struct
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from serving.detector.decision import Verdict
from serving.http.problems import ProblemError
from serving.http.schemas import V2Request, V2Tensor

BYTES: Final = "BYTES"
INPUT: Final = "image"
OUTPUTS: Final[dict[str, str]] = {"prediction": BYTES, "probability": "FP64", "confidence": BYTES}
"""Output tensor -> datatype. Double precision, so that every dialect says the same number."""

HEADER_LENGTH: Final = "inference-header-content-length"

_LENGTH: Final = struct.Struct("<I")

Model = TypeVar("Model", bound=BaseModel)


def decode_base64(text: str, where: str) -> bytes:
    """The bytes of a standard base64 string.

    Raises:
        ProblemError: `invalid_request`, naming `where`.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProblemError("invalid_request", f"{where}: not base64: {error}") from error


def decode_v2(body: bytes, header_length: str | None) -> tuple[V2Request, list[bytes]]:
    """An inference request and its images.

    Args:
        body: JSON, or JSON followed by raw tensor bytes.
        header_length: value of `Inference-Header-Content-Length`; None for plain JSON.

    Raises:
        ProblemError: `invalid_request`, naming the member.
    """
    head, raw = body, b""
    if header_length is not None:
        if not (header_length.isascii() and header_length.isdigit()) or int(header_length) > len(body):
            raise _invalid(
                f"Inference-Header-Content-Length {header_length!r} does not fit a body of {len(body)} bytes"
            )
        head, raw = body[: int(header_length)], body[int(header_length) :]
    request = parse(V2Request, head)
    tensor = request.inputs[0]
    if tensor.name != INPUT or tensor.datatype != BYTES:
        raise _invalid(f"inputs.0: send one tensor `{INPUT}` of datatype BYTES, not `{tensor.name}` {tensor.datatype}")
    size = (tensor.parameters or {}).get("binary_data_size")
    images = _texts(tensor) if size is None else _elements(raw, size)
    if tensor.shape not in ([len(images)], [len(images), 1]):
        raise _invalid(f"inputs.0.shape: {tensor.shape} does not hold the {len(images)} images of the data")
    if not images:
        raise _invalid("inputs.0: at least one image is required")
    unknown = [output.name for output in request.outputs or [] if output.name not in OUTPUTS]
    if unknown:
        raise _invalid(f"outputs: unknown {', '.join(unknown)}; known are {', '.join(OUTPUTS)}")
    return request, images


def encode_v2(
    head: dict[str, Any],
    request: V2Request,
    verdicts: Sequence[Verdict],
) -> tuple[bytes, int | None]:
    """An inference response and the length of its JSON part where raw tensors follow it.

    Args:
        head: `model_name`, `model_version`, `id`.
        request: what was asked; outputs in the order asked for, binary where asked for.
        verdicts: of the images, in order.
    """
    columns: dict[str, list[Any]] = {name: [getattr(verdict, name) for verdict in verdicts] for name in OUTPUTS}
    binary_by_default = bool((request.parameters or {}).get("binary_data_output"))
    wanted = {o.name: bool((o.parameters or {}).get("binary_data", binary_by_default)) for o in request.outputs or []}
    outputs: list[dict[str, Any]] = []
    raw = b""
    for name, binary in (wanted or dict.fromkeys(OUTPUTS, binary_by_default)).items():
        tensor: dict[str, Any] = {"name": name, "datatype": OUTPUTS[name], "shape": [len(verdicts)]}
        if binary:
            packed = _pack(columns[name], OUTPUTS[name])
            tensor["parameters"] = {"binary_data_size": len(packed)}
            raw += packed
        else:
            tensor["data"] = columns[name]
        outputs.append(tensor)
    json = orjson.dumps({**head, "outputs": outputs})
    return json + raw, len(json) if raw else None


def parse(model: type[Model], body: bytes) -> Model:
    """A JSON body as a schema.

    Raises:
        ProblemError: `invalid_request`, naming the first member that does not fit.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        found = [{"field": ".".join(map(str, e["loc"])) or "body", "message": e["msg"]} for e in error.errors()]
        first = f"{found[0]['field']}: {found[0]['message']}"
        raise ProblemError("invalid_request", first, errors=found[:10]) from error


def _texts(tensor: V2Tensor) -> list[bytes]:
    data = tensor.data
    if data is None or not all(isinstance(item, str) for item in data):
        raise _invalid("inputs.0.data: a flat list of base64 strings is required")
    return [decode_base64(item, f"inputs.0.data.{index}") for index, item in enumerate(data)]


def _elements(raw: bytes, size: Any) -> list[bytes]:
    if size != len(raw):
        raise _invalid(f"inputs.0.parameters.binary_data_size: {size} bytes announced, {len(raw)} came")
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        end = at + _LENGTH.size
        if end > len(raw):
            raise _invalid("inputs.0: the binary data ends inside an element's length")
        (length,) = _LENGTH.unpack_from(raw, at)
        if end + length > len(raw):
            raise _invalid("inputs.0: the binary data ends inside an element")
        found.append(raw[end : end + length])
        at = end + length
    return found


def _pack(column: list[Any], datatype: str) -> bytes:
    if datatype != BYTES:
        return np.asarray(column, dtype="<f8").tobytes()
    return b"".join(_LENGTH.pack(len(item)) + item for item in (text.encode() for text in column))


def _invalid(detail: str) -> ProblemError:
    return ProblemError("invalid_request", detail)
