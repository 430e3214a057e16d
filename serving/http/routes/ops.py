"""Routes for probes, dashboards, on-call and the curious."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from serving.cases.record import caveat_of
from serving.drift.report import DriftReport
from serving.http.problems import ProblemError, responses
from serving.http.routes.predict import json_response
from serving.http.schemas import About, Health, Limits, ModelDescription, ModelStatus, Privacy, Probe
from serving.http.service import Service, service_of
from serving.platform.errors import NotReadyError
from serving.served import ModelHolder

router = APIRouter(tags=["operations"])

PRIVACY: Final = Privacy(
    images="Images are judged in memory and forgotten with the answer; none is written to disk or to a log.",
    logs="A log line has the time, route, status, sizes, duration, client address and request id; no image, no key.",
    statistics="Counts, scores and input-quality numbers (size, aspect, format) are kept to watch for drift; "
    "no image can be rebuilt from them.",
)

KEPT_IMAGES: Final = (
    "This server keeps judged images for a limited time, so that those whose true label is reported (POST /feedback) "
    "can join the next training set; the others are deleted. None is written to a log."
)


@router.get("/", summary="What this is", response_model=About)
async def about(request: Request) -> Response:
    """Name, purpose and where to read on."""
    service = service_of(request)
    served = service.champion.current if service.champion.loaded else None
    return json_response(
        About(
            name="AI Product Photo Detector",
            description="Tells whether a product photo is real or AI-generated, and shows where the score came from.",
            documentation="/docs",
            privacy="/privacy",
            model_version=served.version if served else None,
            caveat=caveat_of(served.release) if served else None,
            takes_feedback=service.feedback is not None,
            limits=Limits(
                max_file_bytes=service.settings.max_file_bytes,
                max_batch_files=service.settings.max_batch_files,
                max_batch_bytes=service.settings.max_batch_bytes,
                url_fetch=service.remote is not None,
            ),
        )
    )


@router.get("/privacy", summary="What happens to your images", response_model=Privacy)
async def privacy(request: Request) -> Response:
    """No image is kept, unless this server was told to keep them for training, and then it says so."""
    kept = service_of(request).settings.feedback_keep_images
    return json_response(PRIVACY.model_copy(update={"images": KEPT_IMAGES}) if kept else PRIVACY)


@router.get(
    "/health",
    summary="Readiness in words",
    response_model=Health,
    responses={503: {"model": Health, "description": "No verified model is loaded."}},
)
async def health(request: Request) -> Response:
    """200 only while a verified model answers; model status, uptime, queue and drift."""
    service = service_of(request)
    loaded = service.champion.loaded
    answer = Health(
        status="ok" if loaded else "not_ready",
        model=_status(service.champion),
        challenger=_status(service.challenger) if service.challenger else None,
        uptime_s=round(service.uptime_s, 3),
        queue={
            "waiting": service.predictor.waiting,
            "size": service.predictor.queue_size,
            "slots": service.predictor.slots,
        },
        drift=_drift_summary(service),
    )
    return json_response(answer, 200 if loaded else 503)


@router.get("/livez", summary="Liveness", response_model=Probe)
async def livez() -> Response:
    """As `/healthz`, which Cloud Run answers itself to whoever asks from outside."""
    return json_response(Probe(status="alive"))


@router.get("/healthz", summary="Liveness", response_model=Probe)
async def healthz() -> Response:
    """200 while the event loop turns; says nothing of the model."""
    return json_response(Probe(status="alive"))


@router.get("/readyz", summary="Readiness", response_model=Probe, responses=responses("not_ready"))
async def readyz(request: Request) -> Response:
    """200 while requests can be answered."""
    _ = service_of(request).champion.current
    return json_response(Probe(status="ready"))


@router.get("/startup", summary="Start-up", response_model=Probe, responses=responses("not_ready"))
async def startup(request: Request) -> Response:
    """200 once the model is verified and loaded."""
    _ = service_of(request).champion.current
    return json_response(Probe(status="started"))


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Text exposition of every metric, over all worker processes."""
    service = service_of(request)
    if service.lifecycle is not None:
        await asyncio.to_thread(service.lifecycle.refresh)
    body, content_type = service.telemetry.render(request.headers.get("accept", ""))
    return Response(body, headers={"content-type": content_type})


@router.get(
    "/model", summary="What is served, and why", response_model=ModelDescription, responses=responses("not_ready")
)
async def model(request: Request) -> Response:
    """The bundle's manifest, its figures on the test split and the gate's verdict."""
    served = service_of(request).champion.current
    manifest = served.detector.manifest
    release = served.release
    evaluation = release.get("evaluation", {})
    return json_response(
        ModelDescription(
            name=manifest.name,
            version=served.version,
            architecture=manifest.architecture,
            input_size=manifest.input_px,
            labels=list(manifest.labels),
            threshold=manifest.decision.threshold,
            digest=manifest.digest,
            metrics=evaluation.get("test", {}).get("metrics"),
            verdict=release.get("verdict"),
            release=release.get("release"),
            manifest=manifest.model_dump(mode="json"),
        )
    )


@router.get("/drift", summary="Has the traffic moved?", response_model=DriftReport, responses=responses("not_ready"))
async def drift(request: Request) -> Response:
    """The latest predictions against the model's reference: a sliding view, and the tests of the last full window."""
    service = service_of(request)
    _ = service.champion.current
    report = await asyncio.to_thread(service.drift.report) if service.drift is not None else None
    if report is None:
        raise ProblemError("not_ready", "the drift state cannot be read now; the server's log says why")
    return json_response(report)


def _status(holder: ModelHolder) -> ModelStatus:
    try:
        served = holder.current
    except NotReadyError:
        return ModelStatus(loaded=False, uri=holder.uri)
    manifest = served.detector.manifest
    return ModelStatus(
        loaded=True,
        name=manifest.name,
        version=served.version,
        architecture=manifest.architecture,
        digest=manifest.digest,
        uri=served.uri,
        loaded_at=datetime.fromtimestamp(served.loaded_at, UTC).isoformat(timespec="seconds"),
    )


def _drift_summary(service: Service) -> dict[str, Any] | None:
    summary = service.drift.summary() if service.drift is not None else None
    return summary.model_dump(mode="json") if summary is not None else None
