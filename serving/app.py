"""The application: its parts wired together, and their lifespan."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.routing import APIRoute, iter_route_contexts

from serving.detector.collector import lasting
from serving.detector.conclusion import Policy
from serving.detector.image import ImageLimits
from serving.drift.monitor import DriftMonitor, DriftPolicy, tell
from serving.drift.shared import SharedWindows
from serving.evidence import Evidence
from serving.feedback.metrics import FeedbackMetrics
from serving.feedback.store import FeedbackPolicy, FeedbackStore
from serving.http import problems, security
from serving.http.openapi import describe
from serving.http.predictor import Predictor
from serving.http.problems import ProblemError, refusal
from serving.http.remote import RemotePhotos
from serving.http.routes import documentation, feedback, ops, predict, protocols
from serving.http.service import Service
from serving.http.uploads import BodyBudget
from serving.lifecycle import LifecycleMetrics, ModelName
from serving.platform.errors import ImageRefusedError, NotReadyError
from serving.provenance.credentials import Verifier
from serving.served import ModelHolder, Served
from serving.settings import Settings
from serving.shadow import Shadow
from serving.telemetry import Telemetry, configure_logging

DESCRIPTION: Final = """\
Tells whether an e-commerce product photo is real or AI-generated, and shows where the score came from.

Every error is an RFC 9457 `application/problem+json` document; its member `reason` is stable and meant for programs.
No image is kept. All routes are also served under `/v1`.
"""


def create_app(settings: Settings | None = None, served: Served | None = None) -> FastAPI:
    """The HTTP application.

    Args:
        settings: where and how to serve; read from the environment when not given.
        served: a model that is loaded already; otherwise the lifespan loads the settings' own.
    """
    settings = settings or Settings()
    app = FastAPI(
        title="AI Product Photo Detector",
        description=DESCRIPTION,
        version=version("ai-product-photo-detector"),
        generate_unique_id_function=_operation_id,
        lifespan=_lifespan,
        redirect_slashes=False,
        # serving.http.routes.documentation has them, without a CDN
        docs_url=None,
        redoc_url=None,
        # spans and metrics are serving.telemetry's; FastAPI's own would look for a collector at every request
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    service = build_service(settings)
    app.state.service = service
    app.state.preloaded = served
    for prefix in ("", "/v1"):
        app.include_router(predict.router, prefix=prefix)
        app.include_router(feedback.router, prefix=prefix)
        app.include_router(ops.router, prefix=prefix)
    app.include_router(documentation.router)
    app.include_router(protocols.v2)
    app.include_router(protocols.vertex_router(settings.aip_predict_route, settings.aip_health_route))
    _refuse_ambiguous_routes(app)
    app.openapi = describe(app, settings)  # type: ignore[method-assign] # FastAPI's documented way to extend the description
    _install_errors(app, service.telemetry)
    security.install(app, settings, service.telemetry)
    return app


def create_worker() -> FastAPI:
    """The application of one of several processes: settings and model are its own."""
    with lasting():
        settings = Settings()
        configure_logging(settings.log_level, settings.log_format)
        return create_app(settings)


def build_service(settings: Settings) -> Service:
    """The working parts, not yet started."""
    telemetry = Telemetry(settings.prometheus_multiproc_dir)
    limits = ImageLimits(max_bytes=settings.max_file_bytes)
    policy = Policy(Verifier(settings.trust_lists), settings.decision_real_below, settings.decision_ai_from)
    predictor = Predictor(
        settings.slots_per_process,
        settings.queue_length,
        settings.request_timeout_s,
        telemetry.queue_depth,
        settings.decode_timeout_s,
        limits,
        policy=policy,
        on_failed=telemetry.predictions_failed,
    )

    def holder(
        uri: str, name: ModelName, label: str = "", digest: str = "", on_load: Callable[[Served], None] | None = None
    ) -> ModelHolder:
        failed = partial(lifecycle.refresh_failed, name)
        return ModelHolder(uri, settings.model_cache_dir, settings.mlflow_tracking_uri, label, digest, on_load, failed)

    evidence = Evidence(settings.evidence_uri) if settings.evidence_uri else None
    drift = DriftMonitor(
        DriftPolicy.of(settings),
        settings.drift_state,
        partial(tell, telemetry),
        partial(telemetry.record_trouble, "drift"),
        None if evidence is None else SharedWindows(evidence, settings.drift_max_age_s),
    )

    labels = _feedback(settings, telemetry, evidence)
    lifecycle = LifecycleMetrics(telemetry.registry, settings.pipeline_runs_dir)

    def on_champion(served: Served) -> None:
        telemetry.model_loaded(served.detector.manifest, served.version)
        telemetry.bands(served.detector.bands(policy))
        drift.serve(served.version, served.reference, served.detector.rule)
        lifecycle.serve(served.detector.manifest)
        if labels is not None:
            labels.serve(served.version)

    champion = holder(settings.champion_uri, "champion", settings.model_version, settings.model_digest, on_champion)
    service = Service(settings, telemetry, champion, predictor, BodyBudget(settings.max_buffered_bytes))
    service.drift, service.feedback, service.lifecycle = drift, labels, lifecycle
    if settings.fetch_hosts:
        service.remote = RemotePhotos.of(settings)
    if settings.shadow_model_uri:
        service.challenger = holder(settings.shadow_model_uri, "challenger")
        service.shadow = Shadow(
            service.challenger, settings.shadow_sample, lambda: predictor.waiting == 0, telemetry.shadow, limits
        )
    return service


def _feedback(settings: Settings, telemetry: Telemetry, evidence: Evidence | None) -> FeedbackStore | None:
    metrics = FeedbackMetrics(telemetry.registry)
    if settings.feedback_dir is None:
        return None
    policy = FeedbackPolicy(
        settings.feedback_retention_days * 86400,
        settings.feedback_keep_images,
        settings.feedback_max_images,
        settings.feedback_max_image_bytes,
    )
    trouble = partial(telemetry.record_trouble, "feedback")
    return FeedbackStore(settings.feedback_dir, policy, metrics, trouble, evidence)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    settings = service.settings
    loop = asyncio.get_running_loop()
    if app.state.preloaded is not None:
        service.champion.take(app.state.preloaded)
    else:
        await loop.run_in_executor(None, service.champion.load)
    if service.challenger is not None:
        # the champion serves without one; a refresh may find it later
        await loop.run_in_executor(None, service.challenger.refresh)
    if settings.explain_warmup:
        await loop.run_in_executor(None, service.champion.current.detector.warm_up_explanations)
    for recorder in service.recorders:
        recorder.start()
    refresher = asyncio.create_task(_refresh(service)) if settings.model_refresh_s else None
    try:
        yield
    finally:
        if refresher is not None:
            refresher.cancel()
            with suppress(asyncio.CancelledError):
                await refresher
        if service.shadow is not None:
            service.shadow.close()
        if service.remote is not None:
            service.remote.close()
        service.predictor.close()
        for recorder in service.recorders:
            recorder.close()


async def _refresh(service: Service) -> None:
    holders = [holder for holder in (service.champion, service.challenger) if holder is not None]
    while True:
        await asyncio.sleep(service.settings.model_refresh_s)
        for holder in holders:
            await asyncio.to_thread(holder.refresh)


def _install_errors(app: FastAPI, telemetry: Telemetry) -> None:
    problems.install(app)

    async def on_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        telemetry.rejected(error.reason)
        return refusal(error.reason, error.detail, request.scope, error.headers, **error.extra)

    async def on_refused_image(request: Request, error: Exception) -> Response:
        assert isinstance(error, ImageRefusedError)
        telemetry.rejected(error.reason)
        return refusal(error.reason, str(error), request.scope)

    async def on_not_ready(request: Request, error: Exception) -> Response:
        assert isinstance(error, NotReadyError)
        telemetry.rejected("not_ready")
        return refusal("not_ready", str(error), request.scope)

    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(NotReadyError, on_not_ready)
    app.add_exception_handler(ImageRefusedError, on_refused_image)


def _refuse_ambiguous_routes(app: FastAPI) -> None:
    """Raises ValueError where AIP_PREDICT_ROUTE or AIP_HEALTH_ROUTE takes the path of another route."""
    seen: set[tuple[str, str]] = set()
    for route in iter_route_contexts(app.routes):
        for method in route.methods or ():
            path = (route.path or "").rstrip("/")
            if (path, method) in seen and method != "HEAD":
                raise ValueError(
                    f"{method} {route.path} is two routes; choose other paths in AIP_PREDICT_ROUTE and AIP_HEALTH_ROUTE"
                )
            seen.add((path, method))


def _operation_id(route: APIRoute) -> str:
    path = route.path_format.strip("/").replace("/", "_").replace("{", "").replace("}", "") or "root"
    return f"{min(route.methods or {'any'}).lower()}_{path}"
