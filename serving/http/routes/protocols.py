"""The same predictor in two more dialects: Vertex AI's custom container and the Open Inference Protocol V2.

Both answer all or nothing: their formats have no place for one image's error, so the first refused image refuses the
request and is named by its index.
"""

import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version as installed_version
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from serving.detector.detector import Judgement
from serving.http.codecs import BYTES, HEADER_LENGTH, INPUT, OUTPUTS, decode_v2, decode_vertex, encode_v2
from serving.http.problems import ProblemError, Reason, request_id, responses, shown
from serving.http.records import record_of
from serving.http.routes.direct import DirectRoute
from serving.http.routes.predict import json_response, model_fields, verdict_fields
from serving.http.schemas import (
    TensorMetadata,
    V2Live,
    V2ModelMetadata,
    V2Ready,
    V2Request,
    V2Response,
    V2ServerMetadata,
    VertexPrediction,
    VertexRequest,
    VertexResponse,
)
from serving.http.service import service_of
from serving.platform.errors import ImageRefusedError
from serving.served import Served

DISTRIBUTION: Final = "ai-product-photo-detector"

_REASONS: Final[tuple[Reason, ...]] = (
    "malformed_request",
    "unauthorized",
    "body_timeout",
    "request_too_large",
    "file_too_large",
    "invalid_request",
    "too_many_files",
    "unsupported_type",
    "empty",
    "corrupt",
    "too_many_pixels",
    "too_small",
    "rate_limited",
    "internal_error",
    "not_ready",
    "overloaded",
    "decode_timeout",
    "deadline_exceeded",
)

v2 = APIRouter(prefix="/v2", tags=["open inference protocol"])


def vertex_router(predict_route: str, health_route: str) -> APIRouter:
    """The two routes of Vertex AI's custom container contract, at the paths it asks for."""
    router = APIRouter(tags=["vertex ai"], route_class=DirectRoute)
    router.add_api_route(
        predict_route,
        vertex_predict,
        methods=["POST"],
        response_model=VertexResponse,
        responses=responses(*_REASONS),
        openapi_extra=_json_body(VertexRequest),
    )
    router.add_api_route(
        health_route, vertex_health, methods=["GET"], response_model=V2Ready, responses=responses("not_ready")
    )
    return router


def _json_body(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


async def vertex_predict(request: Request) -> Response:
    """Judge each instance `{"b64": ...}`; predictions stand in their order."""
    service = service_of(request)
    with service.admitted(request) as account:
        images = await service.decoded(request, account, decode_vertex)
        served = service.champion.current
        judgements = await _judge(request, served, images, account.client)
        asked = request_id(request.scope)
        model = model_fields(served, request)
        predictions = [
            VertexPrediction(**verdict_fields(j), **model, request_id=asked, item=item)
            for item, j in enumerate(judgements)
        ]
        return json_response(VertexResponse(predictions=predictions))


async def vertex_health(request: Request) -> Response:
    """200 while requests can be answered."""
    _ = service_of(request).champion.current
    return json_response(V2Ready(ready=True))


@v2.get("", response_model=V2ServerMetadata)
async def server_metadata() -> Response:
    """Name, version and protocol extensions of the server."""
    return json_response(
        V2ServerMetadata(name=DISTRIBUTION, version=installed_version(DISTRIBUTION), extensions=["binary_tensor_data"])
    )


@v2.get("/health/live", response_model=V2Live)
async def live() -> Response:
    """200 while the event loop turns."""
    return json_response(V2Live(live=True))


@v2.get("/health/ready", response_model=V2Ready, responses=responses("not_ready"))
async def ready(request: Request) -> Response:
    """200 while requests can be answered."""
    _ = service_of(request).champion.current
    return json_response(V2Ready(ready=True))


_describes: Final[dict[str, Any]] = {
    "response_model": V2ModelMetadata,
    "responses": responses("not_found", "not_ready"),
}
_tells_ready: Final[dict[str, Any]] = {"response_model": V2Ready, "responses": responses("not_found", "not_ready")}
_infers: Final[dict[str, Any]] = {
    "response_model": V2Response,
    "responses": responses(*_REASONS, "not_found"),
    "openapi_extra": _json_body(V2Request),
}


# a path's parameter is always there: each path has a function of its own, so that generated clients have both


@v2.get("/models/{name}", **_describes)
async def model_metadata(request: Request, name: str) -> Response:
    """Tensors of the model: encoded images in, verdicts out."""
    return _metadata(_served(request, name))


@v2.get("/models/{name}/versions/{version}", **_describes)
async def version_metadata(request: Request, name: str, version: str) -> Response:
    """Tensors of this version of the model."""
    return _metadata(_served(request, name, version))


@v2.get("/models/{name}/ready", **_tells_ready)
async def model_ready(request: Request, name: str) -> Response:
    """200 while this model answers."""
    _ = _served(request, name)
    return json_response(V2Ready(ready=True, name=name))


@v2.get("/models/{name}/versions/{version}/ready", **_tells_ready)
async def version_ready(request: Request, name: str, version: str) -> Response:
    """200 while this version of the model answers."""
    _ = _served(request, name, version)
    return json_response(V2Ready(ready=True, name=name))


@v2.post("/models/{name}/infer", **_infers)
async def infer(request: Request, name: str) -> Response:
    """Judge the encoded images of the BYTES tensor `image`, in base64 or as raw binary data."""
    return await _infer(request, name)


@v2.post("/models/{name}/versions/{version}/infer", **_infers)
async def infer_by_version(request: Request, name: str, version: str) -> Response:
    """Judge the encoded images of the BYTES tensor `image` by this version of the model."""
    return await _infer(request, name, version)


async def _infer(request: Request, name: str, version: str | None = None) -> Response:
    service = service_of(request)
    served = _served(request, name, version)
    with service.admitted(request) as account:
        decode = partial(decode_v2, header_length=request.headers.get(HEADER_LENGTH))
        asked, images = await service.decoded(request, account, decode)
        judgements = await _judge(request, served, images, account.client)
        record = record_of(served, service.predictor.policy)
        head = {
            "model_name": name,
            "model_version": served.version,
            **({"id": asked.id} if asked.id else {}),
            "parameters": {"request_id": request_id(request.scope), "record": record.model_dump_json()},
        }
        content, json_bytes = encode_v2(head, asked, judgements)
        if json_bytes is None:
            return Response(content, media_type="application/json")
        return Response(content, headers={HEADER_LENGTH: str(json_bytes)}, media_type="application/octet-stream")


def _metadata(served: Served) -> Response:
    return json_response(
        V2ModelMetadata(
            name=served.detector.manifest.name,
            versions=[served.version],
            platform="onnxruntime_onnx",
            inputs=[TensorMetadata(name=INPUT, datatype=BYTES, shape=[-1])],
            outputs=[TensorMetadata(name=n, datatype=kind, shape=[-1]) for n, kind in OUTPUTS.items()],
        )
    )


def _served(request: Request, name: str, version: str | None = None) -> Served:
    served = service_of(request).champion.current
    manifest = served.detector.manifest
    if name != manifest.name or version not in (None, served.version):
        asked = shown(name if version is None else f"{name} version {version}")
        raise ProblemError("not_found", f"{asked} is not served here; {manifest.name} version {served.version} is")
    return served


async def _judge(request: Request, served: Served, images: Sequence[bytes], client: str) -> list[Judgement]:
    service = service_of(request)
    started = time.perf_counter()
    outcomes = await service.predictor.predict_many(served.detector, images, client)
    judgements: list[Judgement] = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, ImageRefusedError):
            raise ProblemError(outcome.reason, f"image {index}: {outcome}", index=index)
        judgements.append(outcome)
    seconds = time.perf_counter() - started
    for item, (judgement, data) in enumerate(zip(judgements, images, strict=True)):
        service.observe(request, served, judgement, data, seconds, item)
    return judgements
