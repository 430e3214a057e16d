"""The API description: what FastAPI derives from the routes, completed with what stands around them."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from serving.http.problems import ProblemDocument, Reason, responses
from serving.http.schemas import PhotoAddress, V2Request, VertexRequest
from serving.settings import Settings

_ANYWHERE: Final[tuple[Reason, ...]] = ("unauthorized", "request_too_large", "rate_limited", "internal_error")
"""What the middleware around the routes may answer to any request."""

_COME_BACK: Final = ("429", "503")
_LIMIT_HEADERS: Final = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def _header(kind: str, text: str, example: str | int) -> dict[str, Any]:
    return {"description": text, "schema": {"type": kind}, "example": example}


_HEADERS: Final[dict[str, dict[str, Any]]] = {
    "X-Request-ID": _header("string", "Names this request in the log.", "5d0c6ac9a2b84b6c8e3f1f3c7f1d2a90"),
    "Retry-After": _header("integer", "Seconds to wait before asking again.", 12),
    "X-RateLimit-Limit": _header("integer", "Requests allowed in a window; absent where none are counted.", 30),
    "X-RateLimit-Remaining": _header("integer", "Requests left in this window.", 29),
    "X-RateLimit-Reset": _header("integer", "When the window ends, in Unix time.", 1798675200),
}

_UNREFERENCED: Final = ("HTTPValidationError", "ValidationError")


def describe(app: FastAPI, settings: Settings) -> Callable[[], dict[str, Any]]:
    """A replacement for `app.openapi`; the document is made once, on the first call."""
    derive = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(derive(), settings)
        return app.openapi_schema

    return openapi


def _complete(document: dict[str, Any], settings: Settings) -> dict[str, Any]:
    components = document["components"]
    _, bodies = models_json_schema(
        [(model, "validation") for model in (ProblemDocument, PhotoAddress, VertexRequest, V2Request)],
        ref_template="#/components/schemas/{model}",
    )
    components["schemas"] = {
        name: schema
        for name, schema in sorted({**components["schemas"], **bodies["$defs"]}.items())
        if name not in _UNREFERENCED
    }
    components["securitySchemes"] = {"ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}
    # the empty requirement: a key is needed only where the operator asks for one
    document["servers"] = [{"url": settings.root_path or "/"}]
    document["security"] = [{"ApiKey": []}, {}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _complete_responses(operation["responses"])
            _declare_headers(operation["responses"], limited=method == "post")
        if path.endswith("/predict/batch"):
            form = operations["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
            form["properties"]["files"] |= {"maxItems": settings.max_batch_files}
    return document


def _complete_responses(found: dict[str, Any]) -> None:
    # FastAPI documents its own 422 wherever a path has a parameter; ours are of another shape, and told by the routes
    content = found.get("422", {}).get("content", {})
    if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("HTTPValidationError"):
        del found["422"]
    for status, answer in responses(*_ANYWHERE).items():
        found.setdefault(str(status), answer)


def _declare_headers(found: dict[str, Any], *, limited: bool) -> None:
    for status, answer in found.items():
        names = ["X-Request-ID"]
        if status in _COME_BACK:
            names.append("Retry-After")
        if status == "429" or (limited and status.startswith("2")):
            names += _LIMIT_HEADERS
        answer["headers"] = {name: _HEADERS[name] for name in names}
