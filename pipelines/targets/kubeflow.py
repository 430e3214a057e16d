"""Run the compiled spec on an open-source Kubeflow Pipelines server."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pipelines.conclusion import Ended, conclude
from pipelines.preflight import check_parameters, jobs_of_their_own
from pipelines.reach import out_of_reach
from pipelines.runs import PIPELINE_FILE, RunRecord, StageStatus, together
from pipelines.settings.names import JOB_NAMES, Stage, Task, task_of
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.kubeflow_client import connect, look, package, patience, server_errors
from pipelines.targets.outputs import collect_tracked
from pipelines.targets.scheduler import Scheduler
from pipelines.targets.target import Listener, set_machine
from serving.platform.errors import PreflightError

if TYPE_CHECKING:
    from kfp import dsl

_ENDED: Final[dict[str, Ended]] = {
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "SKIPPED": "failed",
    "CANCELED": "cancelled",
}
_STAGE_STATES: Final[dict[str, StageStatus]] = {
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "FAILED": "failed",
    "CANCELED": "failed",
}


class KubeflowTarget:
    """One server and namespace of Kubeflow Pipelines."""

    caches = False

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config.with_accelerator_used().with_trainer()
        self.poll_s = config.kubeflow.poll_s

    def place(self, stage: Stage, task: "dsl.PipelineTask") -> None:
        """Set image and machine; a stage is never answered from a cache."""
        placed = self.config.model_copy(update={"machines": self.config.task_machines})
        set_machine(task, stage, placed, self.config.kubeflow.accelerator)
        task.set_caching_options(False)

    def prepare(self, spec: dict[str, Any], parameters: dict[str, Any], ask: bool = True) -> list[str]:
        """Check places, machines and parameters, then (with `ask`) that the server answers and what it asks for.

        Raises:
            PreflightError: the server or a stage would refuse what the configuration or the parameters say.
            StageError: the server refuses or cannot be reached.
        """
        training = spec.get("pipelineInfo", {}).get("name") != JOB_NAMES["catalogue"]
        problems = [*jobs_of_their_own(self.config), *out_of_reach(self.config, "kubeflow", training)]
        if problems:
            raise PreflightError("; ".join(problems))
        check_parameters(parameters, spec)
        if ask:
            look(self.config)
        return []

    def run(self, record: RunRecord, parameters: dict[str, Any], listener: Listener) -> None:
        """Submit the spec in the record's folder.

        Raises:
            StageError: the server is not configured, refuses the run or cannot be reached.
        """
        config = self.config
        client = connect(config)
        with server_errors(config), package(json.loads((Path(record.folder) / PIPELINE_FILE).read_text())) as file:
            submitted = client.create_run_from_pipeline_package(
                str(file),
                arguments=parameters,
                run_name=f"{config.tracking.model_name}-{record.run_id}",
                experiment_name=config.kubeflow.experiment,
                namespace=config.kubeflow.namespace or None,
                pipeline_root=config.kubeflow.pipeline_root or None,
                enable_caching=False,
                service_account=config.kubeflow.service_account or None,
            )
        record.status, record.resource = "submitted", str(submitted.run_id)
        record.link = f"{config.kubeflow.host.rstrip('/')}/#/runs/details/{submitted.run_id}"
        record.save()
        listener(record, f"submitted: {record.link}")

    def refresh(self, record: RunRecord) -> list[str]:
        """Ask the server once how a submitted run stands.

        Returns:
            What of an ended run's results could not be read, one line each.

        Raises:
            StageError: the server refuses or cannot be reached.
        """
        client = connect(self.config)
        with server_errors(self.config):
            found = patience(self.config.kubeflow.request_timeout_s)(client.get_run)(record.resource)
        _update(record, found)
        ended = _ENDED.get(found.state)
        if found.created_at:
            until = found.finished_at if ended and found.finished_at else datetime.now(UTC)
            record.seconds = round(max(0.0, (until - found.created_at).total_seconds()), 2)
        notes: list[str] = []
        if ended:
            notes = collect_tracked(record, self.config)
            said = getattr(found.error, "message", "") if found.error else ""
            conclude(record, ended, "" if ended == "cancelled" else said, "the run's page")
        record.save()
        return notes

    def cancel(self, record: RunRecord) -> None:
        """Ask the server to terminate a run.

        Raises:
            StageError: the server refuses or cannot be reached.
        """
        client = connect(self.config)
        with server_errors(self.config):
            client.terminate_run(record.resource)

    def scheduler(self) -> Scheduler:
        """The recurring runs of the configured name on this server."""
        from pipelines.targets.kubeflow_schedules import KubeflowScheduler

        return KubeflowScheduler(self.config)


def _update(record: RunRecord, found: Any) -> None:
    details = found.run_details.task_details if found.run_details else None
    states: dict[Task, list[StageStatus]] = {}
    for detail in details or []:
        stage = task_of(detail.display_name or "")
        if stage is not None:
            states.setdefault(stage, []).append(_STAGE_STATES.get(detail.state, record.stage(stage).status))
    for stage, found_there in states.items():
        record.stage(stage).status = together(found_there)
