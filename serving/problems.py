"""The one shape of every error answer: RFC 9457 `application/problem+json`."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:ai-product-photo-detector:problem:"


def problem(
    status: int,
    detail: str,
    *,
    request_id: str,
    reason: str | None = None,
    headers: Mapping[str, str] | None = None,
    **extensions: Any,
) -> Response:
    """A problem document as a response.

    Args:
        status: HTTP status code; its standard phrase becomes the title.
        detail: what went wrong with this request and what to do about it, for people.
        request_id: the id the answer's `X-Request-ID` and the log lines carry.
        reason: stable snake_case name for machines; becomes the `type` URN and the extension member `reason`.
        headers: further headers, such as `Retry-After`.
        extensions: further members, such as `errors` of a validation.
    """
    document: dict[str, Any] = {
        "type": f"{TYPE_PREFIX}{reason.replace('_', '-')}" if reason else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    if reason:
        document["reason"] = reason
    document.update(extensions)
    return Response(orjson.dumps(document), status, headers, MEDIA_TYPE)
