"""Vertex AI on loopback: a submitted pipelineSpec is executed, every stage in a container of the digest submitted.

Bodies are parsed by Google's own protos (an unknown field is an error). What the stages leave is put into Cloud Storage
under the job's own root, and the job's details point there, as on Vertex AI.
"""

import json
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.cloud import aiplatform_v1, storage

from pipelines.runs import PARAMETERS_FILE, PIPELINE_FILE, REUSED_FILE, RunRecord, StageRun
from pipelines.settings.names import STAGES, Stage, Task, task_of
from pipelines.targets.docker import CONTAINERS_FILE
from pipelines.targets.runner import run_spec
from tests.fakes.google_rest import ApiError, Request
from tests.fakes.vertex import PARENT, FakeVertex, parse, show
from tests.rehearsal.images import Images

REGION = "europe-west1"
_States = aiplatform_v1.PipelineTaskDetail.State
_STATES = {
    "pending": _States.PENDING,
    "running": _States.RUNNING,
    "succeeded": _States.SUCCEEDED,
    "failed": _States.FAILED,
}
_READ: dict[Task, tuple[str, ...]] = {
    "evaluate": ("evaluation", "report"),
    "quality_gate": ("verdict",),
    "deploy": ("deployment",),
}
"""Stage -> the artifacts that a client reads afterwards."""


class ExecutingVertex(FakeVertex):
    """Model registry as in `FakeVertex`; pipeline jobs run through KFP's DockerRunner."""

    def __init__(self, scratch: Path, images: Images) -> None:
        super().__init__()
        self._scratch, self._images = scratch, images
        self.jobs: dict[str, aiplatform_v1.PipelineJob] = {}
        self.records: dict[str, RunRecord] = {}
        self.submitted: list[Request] = []
        self._reused: dict[str, str] = {}
        self._threads: list[threading.Thread] = []

    def route(self, request: Request) -> dict[str, Any]:
        """Pipeline jobs and the quota of T4s here, everything else in the model registry."""
        if request.path.startswith("/v1beta1/projects/proj/services/aiplatform.googleapis.com/consumerQuotaMetrics/"):
            return {
                "consumerQuotaLimits": [{"quotaBuckets": [{"effectiveLimit": "1", "dimensions": {"region": REGION}}]}]
            }
        match = re.fullmatch(rf"/v1/({PARENT}/pipelineJobs)(?:/([^/:]+))?", request.path)
        if match is None:
            return super().route(request)
        if request.method == "POST":
            return self._create(f"{match[1]}/{request.query['pipelineJobId']}", request)
        name = f"{match[1]}/{match[2]}"
        if name not in self.jobs:
            raise ApiError(404, f"{name} not found")
        return show(self._look(name))

    def take_over(self, *stages: Stage) -> None:
        """Let the next job have these stages' results from the job before it, as `aidetect run --resume` would."""
        last = list(self.records.values())[-1]
        self._reused = {stage.replace("_", "-"): last.stage(stage).output_dir for stage in stages}

    def close(self) -> None:
        """Wait for what runs, and stop listening."""
        for thread in self._threads:
            thread.join(120)
        super().close()

    def _create(self, name: str, request: Request) -> dict[str, Any]:
        if name in self.jobs:
            raise ApiError(409, f"{name} already exists")
        job = parse(aiplatform_v1.PipelineJob, request.body)
        job.name, job.create_time = name, datetime.now(UTC)
        job.state = aiplatform_v1.PipelineState.PIPELINE_STATE_RUNNING
        folder = self._scratch / name.rpartition("/")[2]
        folder.mkdir(parents=True)
        spec = request.body["pipelineSpec"]
        for executor in spec["deploymentSpec"]["executors"].values():
            executor["container"]["image"] = self._images.resolve(executor["container"]["image"])
        (folder / PIPELINE_FILE).write_text(json.dumps(spec))
        parameters = request.body["runtimeConfig"]["parameterValues"]
        # the T4 that the spec asks for is not there: what must be trained on it and on nothing else, trains here
        assert parameters["train_config"]["device"] == "cuda"
        parameters["train_config"]["device"] = "cpu"
        (folder / PARAMETERS_FILE).write_text(json.dumps(parameters))
        # this machine's files are not there: only the job's root, which KFP mounts for its owner to write, and the
        # job's bucket, which Vertex AI mounts at /gcs
        bucket = request.body["runtimeConfig"]["gcsOutputDirectory"].removeprefix("gs://").partition("/")[0]
        mounted = self._scratch / "gcs" / bucket
        mounted.mkdir(parents=True, exist_ok=True)
        options = {
            "network_mode": "host",
            "user": f"{os.getuid()}:{os.getgid()}",
            "environment": {},
            "mounts": [{"Target": f"/gcs/{bucket}", "Source": str(mounted), "Type": "bind", "ReadOnly": False}],
            "read_only": True,
            "tmpfs": {"/tmp": ""},
            "cap_drop": ["ALL"],
        }
        (folder / CONTAINERS_FILE).write_text(json.dumps(options))
        (folder / REUSED_FILE).write_text(json.dumps(self._reused))
        self._reused = {}
        record = RunRecord(
            run_id=name.rpartition("/")[2],
            target="vertex",
            profile="",
            started_at="",
            stages=[StageRun(name=stage) for stage in STAGES],
            folder=str(folder),
        )
        self.jobs[name], self.records[name] = job, record
        self.submitted.append(request)
        self._threads.append(threading.Thread(target=self._execute, args=(name,), daemon=True))
        self._threads[-1].start()
        return show(job)

    def _execute(self, name: str) -> None:
        job, record = self.jobs[name], self.records[name]
        containers = str(Path(record.folder) / CONTAINERS_FILE)
        run_spec(record, lambda *_: None, "--runner", "docker", "--containers", containers)
        states = aiplatform_v1.PipelineState
        failed = record.status in ("failed", "interrupted")
        self._publish(job, record)
        job.end_time = datetime.now(UTC)
        job.state = states.PIPELINE_STATE_FAILED if failed else states.PIPELINE_STATE_SUCCEEDED

    def _publish(self, job: aiplatform_v1.PipelineJob, record: RunRecord) -> None:
        """Put what clients read into the job's root in Cloud Storage."""
        bucket, _, root = job.runtime_config.gcs_output_directory.removeprefix("gs://").partition("/")
        target = storage.Client().bucket(bucket)
        for stage, artifacts in _READ.items():
            for artifact in artifacts if record.ran(stage) else ():
                output = record.output(stage, artifact)
                for path in [output] if output.is_file() else output.rglob("*"):
                    if path.is_file():
                        inside = path.relative_to(output.parent).as_posix()
                        blob = target.blob(f"{root}/{record.run_id}/{stage}/{inside}")
                        blob.upload_from_filename(str(path), checksum="crc32c")

    def _look(self, name: str) -> aiplatform_v1.PipelineJob:
        job, record = self.jobs[name], self.records[name]
        ended = job.state != aiplatform_v1.PipelineState.PIPELINE_STATE_RUNNING
        details = []
        for stage in record.stages:
            if stage.status == "pending" and not ended:
                continue
            state = _STATES[stage.status] if stage.status != "pending" else _States.NOT_TRIGGERED
            detail = aiplatform_v1.PipelineTaskDetail(task_name=stage.name.replace("_", "-"), state=state)
            if stage.status in ("succeeded", "failed"):
                detail.start_time = job.create_time
                detail.end_time = datetime.fromtimestamp(job.create_time.timestamp() + stage.seconds, UTC)
            if stage.status == "failed":
                message = record.error.removeprefix(f"{stage.name}: ")
                detail.error = {"code": 9, "message": message}
            if ended:
                detail.outputs = self._outputs(job, record, stage.name)
            details.append(detail)
        job.job_detail = aiplatform_v1.PipelineJobDetail(task_details=details)
        return job

    @staticmethod
    def _outputs(job: aiplatform_v1.PipelineJob, record: RunRecord, stage: Task) -> dict[str, Any]:
        if task_of(stage.replace("_", "-")) is None or not record.ran(stage):
            return {}
        root = f"{job.runtime_config.gcs_output_directory}/{record.run_id}/{stage}"
        return {artifact: {"artifacts": [{"uri": f"{root}/{artifact}"}]} for artifact in _READ.get(stage, ())}
