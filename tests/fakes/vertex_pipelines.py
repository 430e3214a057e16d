"""Vertex AI's pipelineJobs on loopback: bodies parsed by Google's own protos, stages that advance at each look."""

import re
from typing import Any

from google.cloud import aiplatform_v1
from google.protobuf import json_format

from tests.fakes.google_rest import ApiError, GoogleRest, Request

STAGES = ("verify-data", "train", "evaluate", "quality-gate", "register", "deploy")


class FakeVertexPipelines(GoogleRest):
    """Jobs that run through `STAGES`, one every `pace` looks; `fails` names a stage, `refuses` has the gate refuse."""

    def __init__(self, fails: str = "", refuses: bool = False, pace: int = 1) -> None:
        super().__init__()
        self.fails, self.refuses, self.pace = fails, refuses, pace
        self.jobs: dict[str, aiplatform_v1.PipelineJob] = {}
        self.looks: dict[str, int] = {}
        self.cancelled: list[str] = []

    def route(self, request: Request) -> dict[str, Any]:
        """Create, get, list and cancel."""
        match = re.fullmatch(
            r"/v1/(projects/[^/]+/locations/[^/]+/pipelineJobs)(?:/([^/:]+))?(?::(\w+))?", request.path
        )
        if match is None:
            raise ApiError(404, f"{request.path} not found")
        parent, identity, verb = match.groups()
        if request.method == "POST" and verb is None:
            return self._create(f"{parent}/{request.query['pipelineJobId']}", request.body)
        name = f"{parent}/{identity}"
        if name not in self.jobs:
            raise ApiError(404, f"{name} not found")
        if verb == "cancel":
            self.cancelled.append(name)
            return {}
        return self._advance(name)

    def _create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name in self.jobs:
            raise ApiError(409, f"{name} already exists")
        job = aiplatform_v1.PipelineJob()
        json_format.ParseDict(body, aiplatform_v1.PipelineJob.pb(job))
        job.name = name
        job.state = aiplatform_v1.PipelineState.PIPELINE_STATE_PENDING
        self.jobs[name], self.looks[name] = job, 0
        return self._document(job)

    def _advance(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        self.looks[name] += 1
        done = STAGES[: 1 + self.looks[name] // self.pace]
        last = "quality-gate" if self.refuses else STAGES[-1]
        states = aiplatform_v1.PipelineTaskDetail.State
        details = []
        for stage in done:
            failed = stage == self.fails
            details.append(
                aiplatform_v1.PipelineTaskDetail(
                    task_name=stage,
                    state=states.FAILED if failed else states.SUCCEEDED,
                    start_time={"seconds": 1000},
                    end_time={"seconds": 1060},
                    error={"code": 9, "message": f"{stage} says why"} if failed else None,
                )
            )
            if failed or stage == last:
                break
        ended = details[-1].task_name == last
        job.state = aiplatform_v1.PipelineState.PIPELINE_STATE_RUNNING
        if details[-1].state == states.FAILED:
            job.state = aiplatform_v1.PipelineState.PIPELINE_STATE_FAILED
        elif ended:
            job.state = aiplatform_v1.PipelineState.PIPELINE_STATE_SUCCEEDED
        if ended and self.refuses:
            details += [aiplatform_v1.PipelineTaskDetail(task_name=s, state=states.SKIPPED) for s in STAGES[4:]]
        job.job_detail = aiplatform_v1.PipelineJobDetail(task_details=details)
        return self._document(job)

    @staticmethod
    def _document(job: aiplatform_v1.PipelineJob) -> dict[str, Any]:
        document: dict[str, Any] = json_format.MessageToDict(aiplatform_v1.PipelineJob.pb(job))
        return document
