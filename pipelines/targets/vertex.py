"""Run the compiled spec on Vertex AI Pipelines, follow its stages, and map its failures to one line."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from components.platform.google_cloud import connect, google_errors, label, patience, reading
from pipelines.conclusion import Ended, conclude
from pipelines.preflight import ask_cloud, check_cloud, refuse_movable_tags
from pipelines.runs import PIPELINE_FILE, RunRecord, StageStatus, together
from pipelines.settings.names import CACHED, JOB_NAMES, Stage, Task, task_of
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.outputs import Output, Outputs, collect, expired
from pipelines.targets.scheduler import Scheduler
from pipelines.targets.target import Listener, set_machine
from serving.platform.errors import StageError

if TYPE_CHECKING:
    from google.cloud.aiplatform_v1 import PipelineJob, PipelineServiceClient
    from kfp import dsl

_STAGE_STATES: Final[dict[str, StageStatus]] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "CANCEL_PENDING": "running",
    "SUCCEEDED": "succeeded",
    "SKIPPED": "succeeded",  # answered from the cache
    "NOT_TRIGGERED": "pending",  # behind a gate that refused
    "FAILED": "failed",
    "CANCELLING": "running",
    "CANCELLED": "failed",
}
_ENDED: Final[dict[str, Ended]] = {"SUCCEEDED": "succeeded", "FAILED": "failed", "CANCELLED": "cancelled"}


class VertexTarget:
    """One project and region of Vertex AI Pipelines."""

    def __init__(self, config: PipelineConfig) -> None:
        self.config = config.with_accelerator_used().with_cluster()
        self.poll_s = config.vertex.poll_s

    def place(self, stage: Stage, task: "dsl.PipelineTask") -> None:
        """Set image, machine and caching.

        Raises:
            CompileError: an image is named by a tag that may move under a cached run.
        """
        refuse_movable_tags(self.config)
        placed = self.config.model_copy(update={"machines": self.config.task_machines})
        set_machine(task, stage, placed, placed.machines.of(stage).accelerator)
        task.set_caching_options(self.caches and stage in CACHED)

    @property
    def caches(self) -> bool:
        """As configured (`vertex.caching`), where the state of the data is known (`pipelines.cache`)."""
        return self.config.vertex.caching

    def prepare(self, spec: dict[str, Any], parameters: dict[str, Any], ask: bool = True) -> list[str]:
        """Check configuration, parameters and spec, then (with `ask`) buckets, images and quota; tells the cost.

        Raises:
            PreflightError: the run would be refused or wasted; nothing was sent.
        """
        check_cloud(self.config, parameters, spec)
        return ask_cloud(self.config, parameters.get("destination", "")) if ask else []

    def run(self, record: RunRecord, parameters: dict[str, Any], listener: Listener) -> None:
        """Submit the spec in the record's folder.

        Raises:
            StageError: Google refused or could not be reached; one line with the fix.
        """
        submit(record, self.config, parameters)
        listener(record, f"submitted: {record.link}")

    def refresh(self, record: RunRecord) -> list[str]:
        """Ask Vertex AI once how a submitted run stands.

        Returns:
            What of an ended run's results could not be read, one line each; of another, what it waits for.

        Raises:
            StageError: Vertex AI does not know the run, refused or could not be reached.
        """
        state, job = _look(record, self.config)
        missing = ["Vertex AI has paused the run; resume it on its page"] if state == "PAUSED" else []
        if state in _ENDED:
            details = list(job.job_detail.task_details)
            outputs = _outputs(details)
            missing = collect(record, outputs)
            said = _said(details)
            if state == "FAILED" and (gone := expired(record, outputs)):
                said = f"{said or 'failed'}; {gone}"
            conclude(record, _ENDED[state], said, "the run's page")
        record.save()
        return missing

    def cancel(self, record: RunRecord) -> None:
        """Cancel a submitted run; Vertex AI ends it in its own time.

        Raises:
            StageError: Vertex AI does not know the run, refused or could not be reached.
        """
        with google_errors("cancel the run on Vertex AI"):
            _jobs(record, self.config).cancel_pipeline_job(
                name=record.resource, timeout=self.config.vertex.request_timeout_s
            )

    def scheduler(self) -> Scheduler:
        """The schedules of the configured name in this project and region."""
        from pipelines.targets.vertex_schedules import VertexScheduler

        return VertexScheduler(self.config)


def submit(record: RunRecord, config: PipelineConfig, parameters: dict[str, Any]) -> None:
    """Submit the spec in the record's folder; the record receives the job's resource name and console page.

    Raises:
        StageError: Google refused or could not be reached; one line with the fix.
    """
    with google_errors(f"submit to Vertex AI in {config.vertex.project}"):
        from google.api_core.exceptions import Conflict
        from google.cloud import aiplatform

        _initialise(config)
        # the client prints to standard output what this function says in the record; each module sets its own level
        logging.getLogger("google.cloud.aiplatform.pipeline_jobs").setLevel(logging.ERROR)
        job = aiplatform.PipelineJob(
            display_name=f"{config.tracking.model_name}-{record.run_id}",
            template_path=str(Path(record.folder) / PIPELINE_FILE),
            job_id=job_id(record),
            pipeline_root=config.vertex.pipeline_root,
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
            if record.resource:
                raise StageError(f"run {job_id(record)} is there already; nothing was started twice") from error
        except OSError:
            # the network may have lost the answer alone: then the job runs, and nobody would know
            if not _stands(record, config):
                raise
    record.status = "submitted"
    record.resource = f"{_parent(config)}/pipelineJobs/{job_id(record)}"
    record.link = (
        f"https://console.cloud.google.com/vertex-ai/locations/{config.vertex.region}/pipelines/runs/"
        f"{job_id(record)}?project={config.vertex.project}"
    )
    record.save()


def _parent(config: PipelineConfig) -> str:
    return f"projects/{config.vertex.project}/locations/{config.vertex.region}"


def _stands(record: RunRecord, config: PipelineConfig) -> bool:
    """Whether the job of this record was made."""
    from google.api_core.exceptions import NotFound

    timeout_s = config.vertex.request_timeout_s
    name = f"{_parent(config)}/pipelineJobs/{job_id(record)}"
    try:
        _jobs(record, config).get_pipeline_job(name=name, retry=reading(timeout_s), timeout=timeout_s)
    except NotFound:
        return False
    return True


def _said(details: list[Any]) -> str:
    """What Vertex AI says of the first stage that failed."""
    failed = [d for d in details if d.state.name in ("FAILED", "CANCELLED") and task_of(d.task_name)]
    return str(failed[0].error.message) if failed else ""


def _initialise(config: PipelineConfig) -> None:
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


def job_id(record: RunRecord) -> str:
    """Vertex AI's id of the run: repeating a submission meets the same id and is refused there."""
    return f"{JOB_NAMES[record.pipeline]}-{record.run_id}"


def run_labels(record: RunRecord) -> dict[str, str]:
    """Labels that say what runs and why, in the characters Google allows."""
    values = {"run-id": record.run_id, "reason": record.reason, "git-sha": record.git_sha[:40]}
    return {key: label(value) for key, value in values.items()}


def _look(record: RunRecord, config: PipelineConfig) -> tuple[str, "PipelineJob"]:
    """State of the job and the job itself; its tasks are written into the record's stages."""
    # the generated client: PipelineJob's own properties wait for the job to end
    timeout_s = config.vertex.request_timeout_s
    with google_errors("ask Vertex AI about the run"):
        job = _jobs(record, config).get_pipeline_job(name=record.resource, retry=reading(timeout_s), timeout=timeout_s)
    _update(record, list(job.job_detail.task_details))
    record.seconds = _seconds(job)
    return job.state.name.removeprefix("PIPELINE_STATE_"), job


def _seconds(job: Any) -> float:
    """From the job's creation to its end, or until now; the library shows its timestamps as datetimes."""
    if not job.create_time:
        return 0.0
    until = job.end_time.timestamp() if job.end_time else time.time()
    return max(0.0, round(float(until - job.create_time.timestamp()), 2))


def _jobs(record: RunRecord, config: PipelineConfig) -> "PipelineServiceClient":
    from google.cloud.aiplatform_v1 import PipelineServiceClient

    # a run stays in the region that it was started in, whatever the configuration says today
    _, _, region = record.resource.partition("/locations/")
    host = f"{region.partition('/')[0] or config.vertex.region}-aiplatform.googleapis.com"
    client: PipelineServiceClient = connect(PipelineServiceClient, host, config.vertex.api_endpoint)
    return client


def _update(record: RunRecord, details: list[Any]) -> None:
    """Write how each stage stands; one that runs many times, as a group of shards, stands as its worst."""
    found: dict[Task, list[Any]] = {}
    for detail in details:
        if (stage := task_of(detail.task_name)) is not None:
            found.setdefault(stage, []).append(detail)
    for stage, ran in found.items():
        entry = record.stage(stage)
        entry.status = together([_STAGE_STATES.get(detail.state.name, entry.status) for detail in ran])
        entry.cached = all(detail.state.name == "SKIPPED" for detail in ran)
        times = [(d.start_time.timestamp(), d.end_time.timestamp()) for d in ran if d.start_time and d.end_time]
        if times and not entry.cached:
            entry.seconds = round(max(end for _, end in times) - min(start for start, _ in times), 2)


def _outputs(details: list[Any]) -> Outputs:
    """The artifacts of the stages that ran, by stage and name."""
    found = {}
    for detail in details:
        stage = task_of(detail.task_name)
        if stage is not None:
            for name, listed in detail.outputs.items():
                for artifact in listed.artifacts:
                    found[stage, name] = Output(artifact.uri, dict(artifact.metadata or {}))
    return found
