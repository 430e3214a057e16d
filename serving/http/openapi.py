"""The API description: what FastAPI derives from the routes, completed with what stands around them."""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from serving.http.problems import ProblemDocument, Reason, responses
from serving.http.schemas import V2Request, VertexRequest
from serving.settings import Settings

_ANYWHERE: Final[tuple[Reason, ...]] = ("unauthorized", "request_too_large", "rate_limited", "internal_error")
"""What the middleware around the routes may answer to any request."""

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
        [(model, "validation") for model in (ProblemDocument, VertexRequest, V2Request)],
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
    for operations in document["paths"].values():
        for operation in operations.values():
            _complete_responses(operation["responses"])
    return document


def _complete_responses(found: dict[str, Any]) -> None:
    # FastAPI documents its own 422 wherever a path has a parameter; ours are of another shape, and told by the routes
    content = found.get("422", {}).get("content", {})
    if content.get("application/json", {}).get("schema", {}).get("$ref", "").endswith("HTTPValidationError"):
        del found["422"]
    for status, answer in responses(*_ANYWHERE).items():
        found.setdefault(str(status), answer)
