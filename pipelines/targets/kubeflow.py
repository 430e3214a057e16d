"""Run the compiled spec on an open-source Kubeflow Pipelines server."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from components.artifacts.failure import StageError
from pipelines.compile import PIPELINE_FILE
from pipelines.config import PipelineConfig
from pipelines.places import stage_of
from pipelines.runs import RunRecord, StageStatus
from pipelines.targets.local import Listener

if TYPE_CHECKING:
    import kfp

_ENDED: Final = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"})
_STAGE_STATES: Final[dict[str, StageStatus]] = {
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "failed",
}


def run(
    record: RunRecord, config: PipelineConfig, parameters: dict[str, Any], listener: Listener, sync: bool
) -> RunRecord:
    """Submit the spec in the record's folder, and with `sync` wait for its end.

    Raises:
        StageError: the server is not configured, refuses the run or cannot be reached.
    """
    client = connect(config)
    started = time.monotonic()
    try:
        submitted = client.create_run_from_pipeline_package(
            str(Path(record.folder) / PIPELINE_FILE),
            arguments=parameters,
            run_name=f"{config.tracking.model_name}-{record.run_id}",
            experiment_name=config.kubeflow.experiment,
            namespace=config.kubeflow.namespace or None,
            pipeline_root=config.kubeflow.pipeline_root or None,
            enable_caching=False,
        )
        record.status, record.resource = "submitted", str(submitted.run_id)
        record.link = f"{config.kubeflow.host.rstrip('/')}/#/runs/details/{submitted.run_id}"
        record.save()
        listener(record, f"submitted: {record.link}")
        while sync:
            found = client.get_run(record.resource)
            _update(record, found)
            listener(record, "")
            if found.state in _ENDED:
                _conclude(record, found)
                break
            time.sleep(config.vertex.poll_s)
    except Exception as error:
        raise StageError(f"Kubeflow Pipelines at {config.kubeflow.host}: {_line(error)}") from error
    record.seconds = round(time.monotonic() - started, 2)
    record.save()
    return record


def connect(config: PipelineConfig) -> "kfp.Client":
    """A client of the configured server.

    Raises:
        StageError: no server is configured, or it does not answer.
    """
    if not config.kubeflow.host:
        raise StageError("set kubeflow.host to the address of a Kubeflow Pipelines server, e.g. http://localhost:8888")
    import kfp

    try:
        return kfp.Client(host=config.kubeflow.host, namespace=config.kubeflow.namespace or "kubeflow")
    except Exception as error:
        raise StageError(f"Kubeflow Pipelines at {config.kubeflow.host} does not answer: {_line(error)}") from error


def _update(record: RunRecord, found: Any) -> None:
    details = found.run_details.task_details if found.run_details else None
    for detail in details or []:
        stage = stage_of(detail.display_name or "")
        if stage is not None:
            record.stage(stage).status = _STAGE_STATES.get(detail.state, record.stage(stage).status)


def _conclude(record: RunRecord, found: Any) -> None:
    if found.state == "SUCCEEDED":
        record.conclude_by_stages()
    elif found.state == "CANCELED":
        record.status, record.error = "interrupted", "cancelled"
    else:
        failed = [stage.name for stage in record.stages if stage.status == "failed"]
        where = f"{failed[0]}: " if failed else ""
        reason = getattr(found.error, "message", "") if found.error else ""
        record.status, record.error = "failed", where + (reason or "failed; see the run's page")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
