"""Run the compiled spec on Vertex AI Pipelines, follow its stages, and map its failures to one line."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from components.artifacts.failure import StageError
from components.artifacts.google_cloud import google_errors, label, patience
from pipelines.compile import PIPELINE_FILE
from pipelines.config import PipelineConfig
from pipelines.places import stage_of
from pipelines.runs import RunRecord, StageStatus
from pipelines.targets.local import Listener

if TYPE_CHECKING:
    from google.cloud.aiplatform import PipelineJob

_STAGE_STATES: Final[dict[str, StageStatus]] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "CANCEL_PENDING": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "pending",
    "NOT_TRIGGERED": "pending",
    "FAILED": "failed",
    "CANCELLING": "running",
    "CANCELLED": "failed",
}
_ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


def submit(record: RunRecord, config: PipelineConfig, parameters: dict[str, Any]) -> "PipelineJob":
    """Submit the spec in the record's folder; the record receives the job's resource name and console page.

    Raises:
        StageError: Google refused or could not be reached; one line with the fix.
    """
    with google_errors(f"submit to Vertex AI in {config.vertex.project}"):
        from google.api_core.exceptions import Conflict
        from google.cloud import aiplatform

        connect(config)
        # the client logs what this function says in the record
        logging.getLogger("google.cloud.aiplatform").setLevel(logging.ERROR)
        job = aiplatform.PipelineJob(
            display_name=f"{config.tracking.model_name}-{record.run_id}",
            template_path=str(Path(record.folder) / PIPELINE_FILE),
            job_id=job_id(record),
            pipeline_root=pipeline_root(config),
            parameter_values=parameters,
            labels={**config.vertex.labels, **run_labels(record)},
            failure_policy=config.vertex.failure_policy,
        )
        try:
            # 429 and 503 say that nothing was done, and the job's id keeps a repeated request from starting two
            patience(config.vertex.request_timeout_s)(job.submit)(
                service_account=config.vertex.service_account or None,
                network=config.vertex.network or None,
                create_request_timeout=config.vertex.request_timeout_s,
            )
        except Conflict as error:
            raise StageError(f"run {job_id(record)} is there already; nothing was started twice") from error
    record.status = "submitted"
    record.resource = job.resource_name
    record.link = job._dashboard_uri()
    record.save()
    return job


def follow(record: RunRecord, job: "PipelineJob", listener: Listener, poll_s: float) -> RunRecord:
    """Follow a job to its end, telling the listener of every stage that changes."""
    started = time.monotonic()
    while True:
        with google_errors("follow the run on Vertex AI"):
            state, details = _state(job)
        _update(record, details)
        record.seconds = round(time.monotonic() - started, 2)
        record.save()
        listener(record, "")
        if state in _ENDED:
            break
        time.sleep(poll_s)
    conclude(record, state, details)
    record.save()
    return record


def conclude(record: RunRecord, state: str, details: list[Any]) -> None:
    """Give an ended job's record its status: a refused gate is a job that succeeded without register."""
    if state == "CANCELLED":
        record.status, record.error = "interrupted", "cancelled"
    elif state == "FAILED":
        failed = [
            detail for detail in details if detail.state.name in ("FAILED", "CANCELLED") and stage_of(detail.task_name)
        ]
        where = f"{stage_of(failed[0].task_name)}: " if failed else ""
        message = failed[0].error.message if failed else ""
        record.status, record.error = "failed", f"{where}{message or 'failed; see the console page'}"
    else:
        record.conclude_by_stages()


def refresh(record: RunRecord, config: PipelineConfig) -> RunRecord:
    """Ask Vertex AI once how a submitted run stands."""
    with google_errors("ask Vertex AI about the run"):
        from google.cloud import aiplatform

        connect(config)
        state, details = _state(aiplatform.PipelineJob.get(record.resource))
    _update(record, details)
    if state in _ENDED:
        conclude(record, state, details)
    record.save()
    return record


def cancel(record: RunRecord, config: PipelineConfig) -> None:
    """Cancel a submitted run; Vertex AI ends it in its own time."""
    with google_errors("cancel the run on Vertex AI"):
        from google.cloud import aiplatform

        connect(config)
        aiplatform.PipelineJob.get(record.resource).cancel()


def connect(config: PipelineConfig) -> None:
    """Point the client library at the configured project, region and (for a private endpoint) address."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import aiplatform

    endpoint = config.vertex.api_endpoint
    settings: dict[str, Any] = {}
    if endpoint:
        settings = {"api_endpoint": endpoint, "api_transport": "rest"}
    if endpoint.startswith("http://"):
        # an address without TLS gets no credentials: a token is never sent in the clear
        settings["credentials"] = AnonymousCredentials()  # type: ignore[no-untyped-call] # google-auth is untyped here
    aiplatform.init(
        project=config.vertex.project, location=config.vertex.region, staging_bucket=config.vertex.bucket, **settings
    )


def pipeline_root(config: PipelineConfig) -> str:
    """Where KFP keeps a run's artifacts."""
    return f"{config.vertex.bucket.rstrip('/')}/pipeline-root"


def job_id(record: RunRecord) -> str:
    """Vertex AI's id of the run: repeating a submission meets the same id and is refused there."""
    return f"ai-product-photo-detector-{record.run_id}"


def run_labels(record: RunRecord) -> dict[str, str]:
    """Labels that say what runs and why, in the characters Google allows."""
    values = {"run-id": record.run_id, "reason": record.reason, "git-sha": record.git_sha[:40]}
    return {key: label(value) for key, value in values.items()}


def _state(job: "PipelineJob") -> tuple[str, list[Any]]:
    state = job.state
    name = state.name if state is not None else "PENDING"
    # `state` has just fetched the job; asking for `task_details` would fetch it again
    return name.removeprefix("PIPELINE_STATE_"), list(job.gca_resource.job_detail.task_details)


def _update(record: RunRecord, details: list[Any]) -> None:
    for detail in details:
        stage = stage_of(detail.task_name)
        if stage is None:
            continue
        entry = record.stage(stage)
        entry.status = _STAGE_STATES.get(detail.state.name, entry.status)
        if detail.start_time and detail.end_time:
            entry.seconds = round(detail.end_time.timestamp() - detail.start_time.timestamp(), 2)
