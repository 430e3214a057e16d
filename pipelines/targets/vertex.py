"""Run the compiled spec on Vertex AI Pipelines, follow its stages, and map its failures to one line."""

import logging
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from components.artifacts.failure import StageError
from pipelines.compile import PIPELINE_FILE
from pipelines.config import PipelineConfig
from pipelines.places import STAGES, Stage
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
        job.submit(
            service_account=config.vertex.service_account or None,
            network=config.vertex.network or None,
            create_request_timeout=config.vertex.request_timeout_s,
        )
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
        failed = [detail for detail in details if detail.state.name in ("FAILED", "CANCELLED") and _stage(detail)]
        where = f"{_stage(failed[0])}: " if failed else ""
        message = failed[0].error.message if failed else ""
        record.status, record.error = "failed", f"{where}{message or 'failed; see the console page'}"
    elif not record.ran("quality_gate"):
        record.status, record.error = "failed", "the run ended without a verdict; see the console page"
    elif not record.ran("register"):
        record.status = "refused"
    else:
        record.status = "deployed" if record.ran("deploy") else "registered"


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
    from google.cloud import aiplatform

    endpoint = config.vertex.api_endpoint
    aiplatform.init(
        project=config.vertex.project,
        location=config.vertex.region,
        staging_bucket=config.vertex.bucket,
        **({"api_endpoint": endpoint, "api_transport": "rest"} if endpoint else {}),
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
    return {key: re.sub(r"[^a-z0-9_-]", "-", value.lower())[:63] for key, value in values.items()}


@contextmanager
def google_errors(doing: str) -> Iterator[None]:
    """Turn what Google's libraries raise into one line that says what to do."""
    from google.api_core import exceptions as api
    from google.auth import exceptions as auth

    try:
        yield
    except auth.DefaultCredentialsError as error:
        raise StageError(f"{doing}: no Google credentials; run: gcloud auth application-default login") from error
    except auth.GoogleAuthError as error:
        raise StageError(f"{doing}: the Google credentials were not accepted: {_first(error)}") from error
    except api.AlreadyExists as error:
        raise StageError(f"{doing}: a run with this id is there already; nothing was started twice") from error
    except api.PermissionDenied as error:
        raise StageError(f"{doing}: permission denied: {_first(error)}; grant roles/aiplatform.user") from error
    except api.NotFound as error:
        raise StageError(f"{doing}: not found: {_first(error)}; check vertex.project, region and bucket") from error
    except (api.ResourceExhausted, api.TooManyRequests) as error:
        raise StageError(f"{doing}: quota exceeded: {_first(error)}; ask for more or wait") from error
    except api.GoogleAPIError as error:
        raise StageError(f"{doing}: {_first(error)}") from error


def _first(error: Exception) -> str:
    return " ".join(str(getattr(error, "message", "") or error).split())


def _state(job: "PipelineJob") -> tuple[str, list[Any]]:
    state = job.state
    name = state.name if state is not None else "PENDING"
    return name.removeprefix("PIPELINE_STATE_"), list(job.task_details)


def _stage(detail: Any) -> Stage | None:
    return next((stage for stage in STAGES if stage.replace("_", "-") == detail.task_name), None)


def _update(record: RunRecord, details: list[Any]) -> None:
    for detail in details:
        stage = _stage(detail)
        if stage is None:
            continue
        entry = record.stage(stage)
        entry.status = _STAGE_STATES.get(detail.state.name, entry.status)
        if detail.start_time and detail.end_time:
            entry.seconds = round(detail.end_time.timestamp() - detail.start_time.timestamp(), 2)
