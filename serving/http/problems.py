"""The one error shape: RFC 9457 `application/problem+json`, the same for every status and every route."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, Literal, cast, get_args

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from serving.detector.image import REASONS
from serving.fetch.refusals import REASONS as FETCH_REASONS
from serving.platform.errors import AidetectError, plain
from serving.platform.request_ids import new_request_id

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:ai-product-photo-detector:problem:"

UrlReason = Literal[
    "url_invalid",
    "url_address_refused",
    "url_host_refused",
    "url_unresolvable",
    "url_unreachable",
    "url_tls_failed",
    "url_timeout",
    "url_too_many_redirects",
    "url_redirect_invalid",
    "url_not_found",
    "url_forbidden",
    "url_rate_limited",
    "url_unavailable",
    "url_server_error",
    "url_status_refused",
    "url_encoding_refused",
    "url_too_large",
    "url_incomplete",
    "url_protocol_error",
    "url_empty",
]
"""Why an address that was sent instead of a photo gave none: `refusals.REASONS` of the fetch, after `url_`."""

Reason = Literal[
    # the request
    "malformed_request",
    "unauthorized",
    "not_found",
    "method_not_allowed",
    "body_timeout",
    "no_challenger",
    "feedback_disabled",
    "url_fetch_disabled",
    UrlReason,
    "request_too_large",
    "uri_too_long",
    "headers_too_large",
    "file_too_large",
    "unsupported_media_type",
    "invalid_request",
    "missing_file",
    "too_many_files",
    # the picture
    "unsupported_type",
    "empty",
    "corrupt",
    "too_many_pixels",
    "too_small",
    "decode_timeout",
    # the service
    "rate_limited",
    "internal_error",
    "not_ready",
    "overloaded",
    "not_kept",
    "deadline_exceeded",
]

STATUS: Final[dict[Reason, int]] = {
    "malformed_request": 400,
    "unauthorized": 401,
    "not_found": 404,
    "method_not_allowed": 405,
    "body_timeout": 408,
    "no_challenger": 409,
    "feedback_disabled": 409,
    "url_fetch_disabled": 409,
    # 4xx, whoever is at fault: the server did its part, and asking it again at once changes nothing
    **dict.fromkeys(get_args(UrlReason), 422),
    "request_too_large": 413,
    "uri_too_long": 414,
    "headers_too_large": 431,
    "file_too_large": 413,
    "unsupported_media_type": 415,
    "invalid_request": 422,
    "missing_file": 422,
    "too_many_files": 422,
    "unsupported_type": 415,
    "empty": 422,
    "corrupt": 422,
    "too_many_pixels": 422,
    "too_small": 422,
    "decode_timeout": 422,
    "rate_limited": 429,
    "internal_error": 500,
    "not_ready": 503,
    "overloaded": 503,
    "not_kept": 503,
    "deadline_exceeded": 503,
}
"""Machine-readable reason -> HTTP status."""

MOST_SHOWN: Final = 200
"""Characters that an error repeats of a request's own words."""
MOST_DETAIL: Final = 1000
MOST_ERRORS: Final = 10
"""Fields that one answer names."""

RETRY_AFTER_S: Final = 1
"""Said with every 503 of a busy server: the queue empties within a second at its longest."""


class ProblemDocument(BaseModel):
    """An RFC 9457 problem. `reason` is stable and meant for programs, `detail` is meant for people."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    reason: str | None = None
    advice: str | None = None
    """Of a refused photo: what its owner can do, in plain words."""


class ProblemError(AidetectError):
    """Raised anywhere under a route; becomes the problem document of its reason."""

    def __init__(self, reason: Reason, detail: str, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra


def request_id(scope: Scope) -> str:
    """The id of this request, made now if no middleware gave it one."""
    state: dict[str, Any] = scope.setdefault("state", {})
    if "request_id" not in state:
        state["request_id"] = new_request_id()
    found: str = state["request_id"]
    return found


def shown(text: str, most: int = MOST_SHOWN) -> str:
    """A client's or a library's words on one line, cut where they are long; what cannot be seen is escaped."""
    cut = text[:most]
    if not cut.isprintable():
        cut = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in cut)
    return cut if len(text) <= most else f"{cut}... ({len(text):,} characters)"


def document(status: int, detail: str, request_id: str, reason: str | None, **extensions: Any) -> dict[str, Any]:
    """The members of a problem document."""
    found: dict[str, Any] = {
        "type": f"{TYPE_PREFIX}{reason.replace('_', '-')}" if reason else "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": shown(detail, MOST_DETAIL),
        "request_id": request_id,
    }
    if reason:
        found["reason"] = reason
    return {**found, **extensions}


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
    body = orjson.dumps(document(status, detail, request_id, reason, **extensions))
    return Response(body, status, headers, MEDIA_TYPE)


def refusal(
    reason: Reason, detail: str, scope: Scope, headers: Mapping[str, str] | None = None, **extensions: Any
) -> Response:
    """The problem of a known reason as a response; its status follows from the reason, which the log line gets too."""
    identifier = request_id(scope)
    scope["state"].setdefault("log", {})["reason"] = reason
    if (advice := advice_of(reason)) is not None:
        extensions.setdefault("advice", advice)
    if scope["path"].startswith("/v2/"):
        # Open Inference Protocol clients look for this member
        extensions.setdefault("error", shown(detail, MOST_DETAIL))
    status = STATUS[reason]
    headers = dict(headers or {})
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    return problem(status, detail, request_id=identifier, reason=reason, headers=headers, **extensions)


def advice_of(reason: Reason) -> str | None:
    """What the photo's owner can do about a refused photo; None where the reason is not the photo's."""
    sentences = REASONS.get(cast("Any", reason))
    return None if sentences is None else sentences.seller


def url_reason(fetch_reason: str) -> UrlReason:
    """A problem's reason for a reason of the fetch."""
    return cast("UrlReason", f"url_{fetch_reason.removeprefix('url_')}")


def responses(*reasons: Reason) -> dict[int | str, dict[str, Any]]:
    """OpenAPI `responses` of a route that may answer with these problems, one example each."""
    found: dict[int | str, dict[str, Any]] = {}
    for reason in sorted(reasons, key=lambda r: (STATUS[r], r)):
        status = STATUS[reason]
        entry = found.setdefault(
            status,
            {
                "description": HTTPStatus(status).phrase,
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDocument"}, "examples": {}}},
            },
        )
        detail = _EXAMPLES.get(reason, HTTPStatus(status).description)
        advice = advice_of(reason)
        more = {} if advice is None else {"advice": advice}
        example = document(status, detail, "5d0c6ac9a2b84b6c8e3f1f3c7f1d2a90", reason, **more)
        entry["content"][MEDIA_TYPE]["examples"][reason] = {"value": example}
    return found


def install(app: FastAPI) -> None:
    """Give the framework's own errors this shape."""
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == HTTPStatus.NOT_FOUND:
        return refusal("not_found", f"no route {shown(request.url.path)}; /docs lists them", request.scope)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{request.method} is not possible here" + (f"; use {allowed}" if allowed else "")
        return refusal("method_not_allowed", detail, request.scope, error.headers)
    reason: Reason = "malformed_request" if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error"
    return refusal(reason, str(error.detail), request.scope, error.headers)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [
        {"field": shown(".".join(map(str, e["loc"]))), "message": shown(plain(e))} for e in error.errors()[:MOST_ERRORS]
    ]
    first = f"{found[0]['field']}: {found[0]['message']}" if found else "the request does not fit its schema"
    return refusal("invalid_request", first, request.scope, errors=found)


_EXAMPLES: Final[dict[Reason, str]] = {
    "malformed_request": "the multipart body is damaged: no closing boundary",
    "unauthorized": "send a valid API key in the header X-API-Key",
    "not_kept": "the label could not be kept: database is locked; send it again",
    "body_timeout": "less than 491,520 bytes of the body came within 30 s",
    **{url_reason(reason): sentence for reason, sentence in FETCH_REASONS.items()},
    "url_fetch_disabled": "this server fetches no addresses; send the photo as multipart/form-data in the field `file`",
    "no_challenger": "no challenger is loaded; set SHADOW_MODEL_URI to a model that exists",
    "request_too_large": "the body has more than 52,428,800 bytes, the limit for this route",
    "file_too_large": "the file has more than 10,485,760 bytes, the limit",
    "unsupported_media_type": "send multipart/form-data with the image in the field `file`",
    "invalid_request": "instances: a list of {'b64': ...} is required",
    "missing_file": "no field `file`; the body has: image",
    "too_many_files": "11 files; at most 10 a request",
    "unsupported_type": "the file is a TIFF picture (judged by its bytes); save it as JPEG, PNG or WebP and send that",
    "empty": "the file is empty",
    "corrupt": "the JPEG data is damaged: only 12 % of its rows could be read, 95 % are needed",
    "too_many_pixels": "13300x13300 has more than 50,000,000 pixels",
    "too_small": "1x1: each side needs at least 16 px",
    "decode_timeout": "it takes more than 4 s of processor time; send fewer pixels, or a baseline JPEG",
    "rate_limited": "30 per 1 minute are allowed here; try again in 12 s",
    "internal_error": "the server failed; its log has this request_id",
    "not_ready": "no model is loaded yet",
    "overloaded": "all 2 slots are busy and the queue of 8 is full; try again",
    "deadline_exceeded": "no answer within 15 s; try again",
}

assert set(STATUS) == set(get_args(Reason))
assert set(map(url_reason, FETCH_REASONS)) == set(get_args(UrlReason))
