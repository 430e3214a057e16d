"""Recurring runs on an open-source Kubeflow Pipelines server."""

import json
import re
from typing import Any, Final

from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.kubeflow_client import connect, package, patience, server_errors
from pipelines.targets.scheduler import Standing, Wanted
from serving.platform.errors import ScheduleError

_DIGEST: Final = re.compile(r"\[digest ([0-9a-f]+)\]")
_PAGE: Final = 100


class KubeflowScheduler:
    """The recurring runs of the configured name on one server."""

    def __init__(self, config: PipelineConfig) -> None:
        self._config = config
        self._client = connect(config)
        self._again = patience(config.kubeflow.request_timeout_s)

    def written(self, wanted: Wanted) -> str:
        """The cron in six fields: seconds first.

        Raises:
            ScheduleError: the server keeps another time zone; a recurring run cannot name its own.
        """
        if wanted.time_zone != self._config.kubeflow.time_zone:
            raise ScheduleError(
                f"schedule.time_zone is {wanted.time_zone}, but Kubeflow Pipelines reads every cron in the server's "
                f"zone, {self._config.kubeflow.time_zone}; set kubeflow.time_zone to its CRON_SCHEDULE_TIMEZONE, or "
                "write the cron in that zone"
            )
        minute, hour, day, month, weekday = wanted.cron.split()
        return f"0 {minute} {hour} {day} {month} {weekday}"

    def identity(self) -> dict[str, Any]:
        """Experiment, pipeline root and identity of the runs."""
        fields = {"experiment", "pipeline_root", "service_account"}
        return self._config.kubeflow.model_dump(mode="json", include=fields)

    def find(self) -> list[Standing]:
        """Those that stand under the name.

        Raises:
            StageError: the server refuses or cannot be reached.
        """
        name, token, found = self._config.schedule.name, "", []
        predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        while True:
            with server_errors(self._config):
                page = self._again(self._client.list_recurring_runs)(
                    page_token=token,
                    page_size=_PAGE,
                    namespace=self._config.kubeflow.namespace or None,
                    filter=json.dumps({"predicates": [predicate]}),
                )
            found += [_standing(run) for run in page.recurring_runs or [] if run.display_name == name]
            token = page.next_page_token or ""
            if not token:
                return found

    def create(self, wanted: Wanted) -> None:
        """Make one, active.

        Raises:
            StageError: the server refuses or cannot be reached.
        """
        kubeflow = self._config.kubeflow
        with server_errors(self._config), package(wanted.spec) as file:
            experiment = self._client.create_experiment(kubeflow.experiment, namespace=kubeflow.namespace or None)
            self._client.create_recurring_run(
                experiment_id=experiment.experiment_id,
                job_name=wanted.name,
                description=f"Made by aidetect schedule from {wanted.git_sha}. [digest {wanted.digest}]",
                cron_expression=self.written(wanted),
                max_concurrency=wanted.max_concurrent_runs,
                no_catchup=True,
                params=wanted.parameters,
                pipeline_package_path=str(file),
                pipeline_root=kubeflow.pipeline_root or None,
                enable_caching=False,
                service_account=kubeflow.service_account or None,
            )

    def update(self, resource: str, wanted: Wanted) -> None:
        """Make a new one as wanted, then remove the old: the server has no way to change one.

        Raises:
            StageError: the server refuses or cannot be reached; if both stand, the next `apply` removes the old.
        """
        self.create(wanted)
        self.delete(resource)

    def pause(self, resource: str) -> None:
        """Stop it from starting runs.

        Raises:
            StageError: the server refuses or cannot be reached.
        """
        with server_errors(self._config):
            self._again(self._client.disable_recurring_run)(resource)

    def resume(self, resource: str) -> None:
        """Let it start runs again; none is made up for.

        Raises:
            StageError: the server refuses or cannot be reached.
        """
        with server_errors(self._config):
            self._again(self._client.enable_recurring_run)(resource)

    def delete(self, resource: str) -> None:
        """Remove it; runs that it started go on.

        Raises:
            StageError: the server refuses or cannot be reached.
        """
        with server_errors(self._config):
            self._client.delete_recurring_run(resource)


def _standing(run: Any) -> Standing:
    found = _DIGEST.search(run.description or "")
    return Standing(
        resource=str(run.recurring_run_id),
        # the mode is what was asked for; the status follows it
        state="active" if run.mode == "ENABLE" else "paused",
        cron=run.trigger.cron_schedule.cron if run.trigger and run.trigger.cron_schedule else "",
        max_concurrent_runs=int(run.max_concurrency or 0),
        digest=found[1] if found else "",
        created_at=run.created_at.isoformat() if run.created_at else "",
    )
