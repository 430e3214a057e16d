"""The user routes: one image, several, an explanation, a comparison."""

import base64
import re
import time
from typing import Any, Final, get_args

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from serving.detector.detector import Judgement, Outcome
from serving.detector.heatmap import Encoding
from serving.detector.image import CAPS
from serving.http.problems import STATUS, ProblemError, Reason, UrlReason, advice_of, request_id, responses
from serving.http.records import record_of
from serving.http.routes.direct import DirectRoute
from serving.http.schemas import (
    BatchItem,
    BatchPrediction,
    ComparedVerdict,
    Comparison,
    Explanation,
    HeatmapType,
    ItemProblem,
    Prediction,
)
from serving.http.service import Service, service_of
from serving.http.uploads import Upload
from serving.platform.errors import ImageRefusedError
from serving.served import Served

router = APIRouter(tags=["predict"], route_class=DirectRoute)

HEATMAP_DIGITS: Final = 6
_NAMES_JPEG: Final = re.compile(r"\s*image/(?:jpeg|\*)\s*(?:;(?!\s*q\s*=\s*0(?:\.0*)?\s*$).*)?")
"""A range of `Accept` that takes a JPEG; `q=0` refuses it."""
MEDIA_TYPES: Final[dict[Encoding, HeatmapType]] = {"png": "image/png", "jpeg": "image/jpeg"}

_EVERY_ROUTE: Final[tuple[Reason, ...]] = (
    "malformed_request",
    "unauthorized",
    "body_timeout",
    "request_too_large",
    "unsupported_media_type",
    "missing_file",
    "too_many_files",
    "rate_limited",
    "internal_error",
    "not_ready",
    "overloaded",
    "decode_timeout",
    "deadline_exceeded",
)
_OF_THE_PICTURE: Final[tuple[Reason, ...]] = (
    "file_too_large",
    "unsupported_type",
    "empty",
    "corrupt",
    "too_many_pixels",
    "too_small",
)


def _form(field: str, schema: dict[str, Any]) -> dict[str, Any]:
    form = {"type": "object", "required": [field], "properties": {field: schema}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}}}


_FILE: Final = {"type": "string", "format": "binary", "description": CAPS}
_ONE: Final = _form("file", _FILE)
_ONE_OR_ADDRESS: Final = {
    "requestBody": {
        "required": True,
        "content": {
            **_ONE["requestBody"]["content"],
            "application/json": {"schema": {"$ref": "#/components/schemas/PhotoAddress"}},
        },
    }
}
_OVERLAY: Final = {
    "parameters": [
        {
            "name": "overlay",
            "in": "query",
            "schema": {"type": "boolean", "default": True},
            "description": "`false`: the grid without a picture, the cheapest for programs that draw it.",
        },
    ]
}
_MANY: Final = _form("files", {"type": "array", "items": _FILE, "minItems": 1, "maxItems": 10})


@router.post(
    "/predict",
    summary="Is this photo real or AI-generated?",
    response_model=Prediction,
    responses=responses(*_EVERY_ROUTE, *_OF_THE_PICTURE, "invalid_request", "url_fetch_disabled", *get_args(UrlReason)),
    openapi_extra=_ONE_OR_ADDRESS,
)
async def predict(request: Request) -> Response:
    """Judge the image in the form field `file`, or behind the address of a JSON body.

    Addresses are fetched only from hosts that the operator names in URL_FETCH_HOSTS; elsewhere: `url_fetch_disabled`.
    """
    service = service_of(request)
    with service.admitted(request) as account:
        data = await service.photo(request, account)
        started = time.perf_counter()
        served = service.champion.current
        judgement = await service.predictor.predict(served.detector, data, account.client)
        service.observe(request, served, judgement, data, time.perf_counter() - started)
        return json_response(Prediction(**_prediction(served, judgement, request)))


@router.post(
    "/predict/batch",
    summary="Judge up to 10 photos in one request",
    response_model=BatchPrediction,
    responses=responses(*_EVERY_ROUTE),
    openapi_extra=_MANY,
)
async def predict_batch(request: Request) -> Response:
    """Judge the images in the repeated form field `files`; each gets a verdict or an error of its own."""
    service = service_of(request)
    with service.admitted(request) as account:
        uploads = await service.uploads(request, account)
        started = time.perf_counter()
        served = service.champion.current
        accepted = [(index, upload) for index, upload in enumerate(uploads) if not upload.too_large]
        outcomes = await service.predictor.predict_many(
            served.detector, [upload.data for _, upload in accepted], account.client
        )
        seconds = time.perf_counter() - started
        items = {
            index: _item(service, served, index, upload, outcome, seconds, request)
            for (index, upload), outcome in zip(accepted, outcomes, strict=True)
        }
        for index, upload in enumerate(uploads):
            if upload.too_large:
                items[index] = _failed(service, index, upload, "file_too_large", service.too_large_detail())
        results = [items[index] for index in range(len(uploads))]
        successful = sum(item.error is None for item in results)
        service.telemetry.batch(len(results))
        return json_response(
            BatchPrediction(
                results=results,
                total=len(results),
                successful=successful,
                failed=len(results) - successful,
                total_inference_time_ms=round(sum(item.inference_time_ms or 0.0 for item in results), 3),
                **model_fields(served, request),
                request_id=request_id(request.scope),
            )
        )


@router.post(
    "/predict/explain",
    summary="Judge a photo and show where the score came from",
    response_model=Explanation,
    responses=responses(*_EVERY_ROUTE, *_OF_THE_PICTURE, "invalid_request"),
    openapi_extra={**_ONE, **_OVERLAY},
)
async def predict_explain(request: Request) -> Response:
    """Judge the image in the form field `file` and explain the predicted class with Grad-CAM.

    The picture in `heatmap_base64` is a PNG, or, where the request's `Accept` names `image/jpeg` beside
    `application/json`, a JPEG: a third of the bytes.
    """
    service = service_of(request)
    encoding = _wanted(request)
    with service.admitted(request) as account:
        data = await service.upload(request, account)
        started = time.perf_counter()
        served = service.champion.current
        explained = await service.predictor.explain(served.detector, data, account.client, encoding)
        service.observe(request, served, explained.judgement, data, time.perf_counter() - started)
        return json_response(
            Explanation(
                **_prediction(served, explained.judgement, request),
                explained_class=explained.explained_class,
                heatmap=explained.grid.astype(float).round(HEATMAP_DIGITS).tolist(),
                heatmap_base64=base64.b64encode(explained.drawn.overlay).decode() if encoding else None,
                heatmap_type=MEDIA_TYPES[encoding] if encoding else None,
            )
        )


@router.post(
    "/predict/compare",
    summary="The champion's verdict beside the challenger's",
    response_model=Comparison,
    responses=responses(*_EVERY_ROUTE, *_OF_THE_PICTURE, "no_challenger"),
    openapi_extra=_ONE,
)
async def predict_compare(request: Request) -> Response:
    """Judge the image in the form field `file` with both models."""
    service = service_of(request)
    if service.challenger is None or not service.challenger.loaded:
        raise ProblemError("no_challenger", "no challenger is loaded; set SHADOW_MODEL_URI to a model that exists")
    with service.admitted(request) as account:
        data = await service.upload(request, account)
        started = time.perf_counter()
        ours, theirs = service.champion.current, service.challenger.current
        champion = await service.predictor.predict(ours.detector, data, account.client)
        service.telemetry.prediction(champion.verdict, time.perf_counter() - started)
        challenger = await service.predictor.predict(theirs.detector, data, account.client)
        agree = champion.verdict.prediction == challenger.verdict.prediction
        service.telemetry.shadow(agree)
        return json_response(
            Comparison(
                champion=_compared(ours, champion, request),
                challenger=_compared(theirs, challenger, request),
                agreement=agree,
                probability_difference=challenger.verdict.probability - champion.verdict.probability,
                request_id=request_id(request.scope),
            )
        )


def _wanted(request: Request) -> Encoding | None:
    """How the caller wants the overlay: a PNG unless told otherwise.

    Raises:
        ProblemError: `invalid_request`.
    """
    asked = request.query_params.get("overlay", "true").lower()
    if asked not in ("true", "false"):
        raise ProblemError("invalid_request", "overlay is true or false")
    if asked == "false":
        return None
    # named, not merely allowed: */* is what every client sends
    return "jpeg" if any(map(_NAMES_JPEG.fullmatch, request.headers.get("accept", "").lower().split(","))) else "png"


def verdict_fields(judgement: Judgement) -> dict[str, Any]:
    """The fields every dialect's JSON shares."""
    verdict = judgement.verdict
    return {
        "prediction": verdict.prediction,
        "probability": verdict.probability,
        "confidence": verdict.confidence,
        "inference_time_ms": round(judgement.seconds * 1000, 3),
        **judgement.conclusion.document(),
    }


def model_fields(served: Served, request: Request) -> dict[str, Any]:
    """Which model said it, at what thresholds, and how often it errs."""
    return {
        "model_version": served.version,
        "threshold": served.detector.rule.threshold,
        "record": record_of(served, service_of(request).predictor.policy),
    }


def _prediction(served: Served, judgement: Judgement, request: Request) -> dict[str, Any]:
    return {**verdict_fields(judgement), **model_fields(served, request), "request_id": request_id(request.scope)}


def _compared(served: Served, judgement: Judgement, request: Request) -> ComparedVerdict:
    return ComparedVerdict(**verdict_fields(judgement), **model_fields(served, request))


def _item(
    service: Service,
    served: Served,
    index: int,
    upload: Upload,
    outcome: Outcome,
    seconds: float,
    request: Request,
) -> BatchItem:
    if isinstance(outcome, ImageRefusedError):
        return _failed(service, index, upload, outcome.reason, str(outcome))
    service.observe(request, served, outcome, upload.data, seconds, index)
    return BatchItem(index=index, filename=upload.filename, **verdict_fields(outcome))


def _failed(service: Service, index: int, upload: Upload, reason: Reason, detail: str) -> BatchItem:
    service.telemetry.rejected(reason)
    error = ItemProblem(reason=reason, detail=detail, status=STATUS[reason], advice=advice_of(reason))
    return BatchItem(index=index, filename=upload.filename, error=error)


def json_response(answer: BaseModel, status: int = 200) -> Response:
    """A schema as the body of an answer."""
    return Response(answer.model_dump_json(), status, media_type="application/json")
