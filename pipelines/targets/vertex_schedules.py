"""Recurring runs on Vertex AI Pipelines."""

import time
from typing import TYPE_CHECKING, Any, Final, Literal

from components.platform.google_cloud import connect, google_errors, label, patience
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.scheduler import Standing, Wanted
from serving.platform.errors import ScheduleError

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import PipelineJob, Schedule

_DIGEST: Final = "schedule-digest"
"""Label of the jobs that a schedule starts; a schedule itself has no labels."""
_STATES: Final[dict[str, Literal["active", "paused", "completed"]]] = {
    "ACTIVE": "active",
    "PAUSED": "paused",
    "COMPLETED": "completed",
}


class VertexScheduler:
    """The schedules of the configured name in one project and region."""

    def __init__(self, config: PipelineConfig) -> None:
        from google.cloud import aiplatform_v1

        if not config.vertex.project:
            raise ScheduleError("set vertex.project; run: aidetect init")
        self._config = config
        self._parent = f"projects/{config.vertex.project}/locations/{config.vertex.region}"
        self._timeout_s = config.vertex.request_timeout_s
        # reading, and writing what is the same however often it is written, is asked again after 429 and 503
        self._options: dict[str, Any] = {"retry": patience(self._timeout_s), "timeout": self._timeout_s}
        with google_errors("Vertex AI schedules"):
            host = f"{config.vertex.region}-aiplatform.googleapis.com"
            self._client: Any = connect(aiplatform_v1.ScheduleServiceClient, host, config.vertex.api_endpoint)

    def written(self, wanted: Wanted) -> str:
        """The cron with its time zone."""
        return f"TZ={wanted.time_zone} {wanted.cron}"

    def identity(self) -> dict[str, Any]:
        """Bucket, identity, network, labels and failure policy of the runs."""
        fields = {"bucket", "service_account", "network", "labels", "failure_policy"}
        return self._config.vertex.model_dump(mode="json", include=fields)

    def find(self) -> list[Standing]:
        """Those that stand under the name.

        Raises:
            StageError: Vertex AI refused or cannot be reached.
        """
        name = self._config.schedule.name
        request = {"parent": self._parent, "filter": f'display_name="{name}"'}
        with google_errors("list Vertex AI schedules"):
            listed = list(self._client.list_schedules(request=request, **self._options))
        return [_standing(found) for found in listed if found.display_name == name]

    def create(self, wanted: Wanted) -> None:
        """Make one, active.

        Raises:
            StageError: Vertex AI refused or cannot be reached.
        """
        from google.api_core.exceptions import ServiceUnavailable, TooManyRequests

        deadline, pause_s = time.monotonic() + self._timeout_s, 0.2
        with google_errors(f"create Vertex AI schedule {wanted.name}"):
            while True:
                try:
                    self._client.create_schedule(
                        parent=self._parent, schedule=self._message(wanted), timeout=self._timeout_s
                    )
                    return
                except (ServiceUnavailable, TooManyRequests):
                    # a schedule has no id of our choosing: the one asked for may stand although the answer was lost
                    if self.find():
                        return
                    if time.monotonic() > deadline:
                        raise
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 8.0)

    def update(self, resource: str, wanted: Wanted) -> None:
        """Make one be as wanted.

        Raises:
            StageError: Vertex AI refused or cannot be reached.
        """
        from google.protobuf.field_mask_pb2 import FieldMask

        schedule = self._message(wanted)
        schedule.name = resource
        mask = FieldMask(
            paths=[
                "cron",
                "max_concurrent_run_count",
                "max_concurrent_active_run_count",
                "create_pipeline_job_request",
            ]
        )
        with google_errors(f"update Vertex AI schedule {wanted.name}"):
            self._client.update_schedule(schedule=schedule, update_mask=mask, **self._options)

    def pause(self, resource: str) -> None:
        """Stop it from starting runs.

        Raises:
            StageError: Vertex AI refused or cannot be reached.
        """
        with google_errors("pause the Vertex AI schedule"):
            self._client.pause_schedule(name=resource, **self._options)

    def resume(self, resource: str) -> None:
        """Let it start runs again; none is made up for.

        Raises:
            StageError: Vertex AI refused or cannot be reached.
        """
        with google_errors("resume the Vertex AI schedule"):
            self._client.resume_schedule(request={"name": resource, "catch_up": False}, **self._options)

    def delete(self, resource: str) -> None:
        """Remove it; runs that it started go on.

        Raises:
            StageError: Vertex AI refused or cannot be reached.
        """
        with google_errors("delete the Vertex AI schedule"):
            self._client.delete_schedule(name=resource, **self._options).result(timeout=self._timeout_s)

    def _message(self, wanted: Wanted) -> "Schedule":
        from google.cloud import aiplatform_v1 as vertex

        return vertex.Schedule(
            display_name=wanted.name,
            cron=self.written(wanted),
            # how many may be started at a time, and how many may be going at a time
            max_concurrent_run_count=wanted.max_concurrent_runs,
            max_concurrent_active_run_count=wanted.max_concurrent_runs,
            allow_queueing=False,
            create_pipeline_job_request=vertex.CreatePipelineJobRequest(
                parent=self._parent, pipeline_job=self._job(wanted)
            ),
        )

    def _job(self, wanted: Wanted) -> "PipelineJob":
        from google.cloud import aiplatform_v1 as vertex
        from google.protobuf import json_format

        config = self._config.vertex
        labels = {"reason": "schedule", "git-sha": label(wanted.git_sha[:40])}
        document: dict[str, Any] = {
            "displayName": wanted.name,
            "pipelineSpec": wanted.spec,
            "labels": {**config.labels, **labels, _DIGEST: wanted.digest},
            "runtimeConfig": {
                "gcsOutputDirectory": self._config.vertex.pipeline_root,
                "parameterValues": wanted.parameters,
                "failurePolicy": f"PIPELINE_FAILURE_POLICY_FAIL_{config.failure_policy.upper()}",
            },
            # as for a single run; the client library's own create_schedule leaves the network out
            "serviceAccount": config.service_account,
            "network": config.network,
        }
        job = vertex.PipelineJob()
        json_format.ParseDict(document, vertex.PipelineJob.pb(job))
        return job


def _standing(found: "Schedule") -> Standing:
    created, following = found.create_time, found.next_run_time
    return Standing(
        resource=found.name,
        state=_STATES.get(found.state.name, "completed"),
        cron=found.cron,
        max_concurrent_runs=found.max_concurrent_run_count,
        digest=found.create_pipeline_job_request.pipeline_job.labels.get(_DIGEST, ""),
        created_at=_text(created),
        next_run_at=_text(following),
    )


def _text(moment: Any) -> str:
    """ISO 8601; the library shows a timestamp as a datetime, and none as None."""
    return str(moment.isoformat()) if moment else ""
