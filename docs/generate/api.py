"""Reference of the HTTP API, from its OpenAPI document."""

from collections.abc import Iterator, Mapping
from typing import Any

from docs.generate.markdown import NOTE, code, table
from docs.generate.schema import kind
from serving.app import create_app
from serving.settings import Settings


def page() -> str:
    """`reference/api.md`."""
    document = create_app(Settings(model_uri="")).openapi()
    routes = {path: operations for path, operations in document["paths"].items() if not path.startswith("/v1/")}
    parts = [
        NOTE.format(source="the server's OpenAPI document"),
        "# HTTP API",
        "The server answers the same at `/openapi.json`, and `/docs` lets one try it. Every route for users also "
        "stands under `/v1`, on the same rate limit. With `REQUIRE_AUTH=true` send the key in the header `X-API-Key`.",
        table(("route", "does"), _summary(routes)),
    ]
    for path, operations in routes.items():
        for method, operation in operations.items():
            parts += [f"## {method.upper()} {path}", *_operation(operation)]
    parts.append("## Bodies")
    for name, schema in document["components"]["schemas"].items():
        parts += [f"### {name}", schema.get("description", ""), table(("field", "type", "meaning"), _fields(schema))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(routes: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for path, operations in routes.items():
        for method, operation in operations.items():
            yield code(f"{method.upper()} {path}"), operation.get("summary", "")


def _operation(operation: Mapping[str, Any]) -> Iterator[str]:
    yield operation.get("description", operation.get("summary", ""))
    parameters = [
        (code(p["name"]), f"{p['in']}, {_type(p['schema'])}", p.get("description", ""))
        for p in operation.get("parameters", [])
    ]
    if parameters:
        yield table(("parameter", "where", "meaning"), parameters)
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        schema = body["schema"]
        fields = ", ".join(
            f"`{name}`: {field.get('description', '')}" for name, field in schema.get("properties", {}).items()
        )
        yield f"Body `{media}`: {fields or _type(schema)}"
    rows = [
        (code(status), _answer(answer), ", ".join(_reasons(answer)))
        for status, answer in operation["responses"].items()
    ]
    yield table(("status", "body", "`reason`"), rows)


def _answer(answer: Mapping[str, Any]) -> str:
    bodies = [
        f"{_type(body['schema'])} ({media})" for media, body in answer.get("content", {}).items() if "schema" in body
    ]
    return ", ".join(bodies) or answer.get("description", "")


def _reasons(answer: Mapping[str, Any]) -> list[str]:
    return [code(name) for body in answer.get("content", {}).values() for name in body.get("examples", {})]


def _fields(schema: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, field in schema.get("properties", {}).items():
        yield code(name), _type(field), field.get("description", "")


def _type(schema: Mapping[str, Any]) -> str:
    return kind(schema, lambda name: f"[{name}](#{name.lower()})")
