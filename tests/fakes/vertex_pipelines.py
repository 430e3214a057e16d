"""Vertex AI's pipelineJobs and schedules on loopback: bodies parsed by Google's own protos, stages that advance."""

import re
import tempfile
from pathlib import Path
from typing import Any

from google.cloud import aiplatform_v1
from google.protobuf import json_format

from components.artifacts.verdict import VERDICT_JSON
from tests.fakes.gcs import FakeGcs
from tests.fakes.google_rest import ApiError, GoogleRest, Request
from tests.fakes.policy import Policy
from tests.fakes.vertex import parse, show
from tests.fakes.vertex_cache import FakeCache
from tests.releases import make_evaluation, make_verdict

CATALOGUE = ("plan-catalogue", "score-group", "score-group", "report-catalogue")
"""With two groups of shards."""
STAGES = ("verify-data", "train", "evaluate", "quality-gate", "register", "deploy")
State = aiplatform_v1.PipelineTaskDetail.State
_SPOT = {"nvidia_t4_gpus": 4, "cpus": 1}
"""Spot quotas of a project that asked for accelerators alone: one CPU is what people find that Google gives."""


class FakeVertexPipelines(GoogleRest):
    """Jobs that run through `STAGES`, one every `pace` looks; `fails` names a stage, `refuses` has the gate refuse.

    With a `gcs`, stages leave their artifacts there as the real ones do: evaluation, verdict and the HTML reports.
    """

    def __init__(self, fails: str = "", refuses: bool = False, pace: int = 1, gcs: FakeGcs | None = None) -> None:
        super().__init__()
        self.fails, self.refuses, self.pace, self.gcs = fails, refuses, pace, gcs
        self.jobs: dict[str, aiplatform_v1.PipelineJob] = {}
        self.looks: dict[str, int] = {}
        self.cancelled: list[str] = []
        self.says_passed: bool | None = None
        """What the verdict says, where it is not what the branch says."""
        self.t4s: dict[str, int] = {"": 4}
        """Region -> T4s that the project may train on; "" for every other region."""
        self.spot = {f"custom_model_training_preemptible_{of}": {"": limit} for of, limit in _SPOT.items()}
        """The same of spot machines, by the quota's name."""
        self.schedules: dict[str, aiplatform_v1.Schedule] = {}
        self.cache = FakeCache()
        self.waits: list[str] = []
        """States that a job shows, a look each, before its first task starts."""
        self._made = 0

    def ask(self, request: Request, policy: Policy) -> None:
        """Jobs, schedules and the quota; who starts a run that another account does must be allowed to act as it."""
        if "/consumerQuotaMetrics/" in request.path:
            policy.require("serviceusage.quotas.get")
            return
        kind = "schedules" if "/schedules" in request.path else "pipelineJobs"
        verb = request.path.partition(":")[2] or request.method
        named = re.search(r"/(pipelineJobs|schedules)/", request.path)
        does = {"POST": "create", "PATCH": "update", "DELETE": "delete", "cancel": "cancel"}.get(verb, "update")
        does = ("get" if named else "list") if verb == "GET" else does
        policy.require(f"aiplatform.{kind}.{does}")
        if does == "create":
            job = request.body.get("createPipelineJobRequest", {}).get("pipelineJob", request.body)
            policy.require("iam.serviceAccounts.actAs", f"account {job.get('serviceAccount', '')}")

    @property
    def changes(self) -> list[str]:
        """`METHOD path` of the requests that could change something, in order."""
        return [f"{r.method} {r.path.rpartition('/')[2]}" for r in self.requests if r.method != "GET"]

    @staticmethod
    def busy() -> ApiError:
        """What an overloaded server answers."""
        return ApiError(503, "overloaded")

    def route(self, request: Request) -> dict[str, Any]:
        """Create, get, list, update, pause, resume, delete and cancel."""
        if "/consumerQuotaMetrics/" in request.path:
            return self._quota(request)
        match = re.fullmatch(
            r"/v1/(projects/[^/]+/locations/[^/]+)/(pipelineJobs|schedules)(?:/([^/:]+))?(?::(\w+))?", request.path
        )
        if match is None:
            raise ApiError(404, f"{request.path} not found")
        parent, kind, identity, verb = match.groups()
        if kind == "schedules":
            return self._schedule(parent, identity or "", verb or request.method, request)
        if request.method == "POST" and verb is None:
            return self._create(f"{parent}/{kind}/{request.query['pipelineJobId']}", request.body)
        if not identity:
            return {"pipelineJobs": [show(job) for name, job in self.jobs.items() if name.startswith(parent)]}
        name = f"{parent}/{kind}/{identity}"
        if name not in self.jobs:
            raise ApiError(404, f"{name} not found")
        if verb == "cancel":
            self.cancelled.append(name)
            self.jobs[name].state = aiplatform_v1.PipelineState.PIPELINE_STATE_CANCELLED
            return {}
        return self._advance(name)

    def _quota(self, request: Request) -> dict[str, Any]:
        quota = request.path.rpartition("aiplatform.googleapis.com/")[2]
        limits = {"custom_model_training_nvidia_t4_gpus": self.t4s, **self.spot}
        if quota not in limits:
            raise ApiError(404, f"{request.path} not found")
        buckets = [
            {"effectiveLimit": str(limit), "dimensions": {"region": region}}
            if region
            else {"effectiveLimit": str(limit)}
            for region, limit in limits[quota].items()
        ]
        return {"consumerQuotaLimits": [{"unit": "1/{project}/{region}", "quotaBuckets": buckets}]}

    def _create(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if name in self.jobs:
            raise ApiError(409, f"{name} already exists")
        job = parse(aiplatform_v1.PipelineJob, body)
        job.name = name
        job.state = aiplatform_v1.PipelineState.PIPELINE_STATE_PENDING
        job.create_time = {"seconds": 1_000}
        self.jobs[name], self.looks[name] = job, 0
        return show(job)

    def _advance(self, name: str) -> dict[str, Any]:
        job = self.jobs[name]
        if name in self.cancelled:
            return show(job)
        if self.waits:
            job.state = aiplatform_v1.PipelineState.__members__[f"PIPELINE_STATE_{self.waits.pop(0)}"]
            return show(job)
        self.looks[name] += 1
        spec, given = spec_of(job), _given(job)
        stages = stages_of(spec)
        if not given.get("auto_deploy", True):
            stages = stages[: stages.index("register") + 1]
        done = stages[: 1 + self.looks[name] // self.pace]
        last = "quality-gate" if self.refuses else stages[-1]
        details = []
        for stage in done:
            answer = self.cache.answer(name, spec, given, stage)
            failed = answer is None and stage == self.fails
            outputs = answer.outputs if answer else {} if failed else self._outputs(job, stage)
            if not failed and not answer:
                self.cache.keep(name, spec, given, stage, outputs)
            details.append(
                aiplatform_v1.PipelineTaskDetail(
                    task_name=stage,
                    state=State.FAILED if failed else State.SKIPPED if answer else State.SUCCEEDED,
                    start_time={"seconds": 1000},
                    end_time={"seconds": 1001 if answer else 1060},
                    error={"code": 9, "message": f"{stage} says why"} if failed else None,
                    outputs=outputs,
                )
            )
            if failed or stage == last:
                break
        ended = details[-1].task_name == last
        job.state = aiplatform_v1.PipelineState.PIPELINE_STATE_RUNNING
        if details[-1].state == State.FAILED:
            job.state = aiplatform_v1.PipelineState.PIPELINE_STATE_FAILED
        elif ended:
            job.state = aiplatform_v1.PipelineState.PIPELINE_STATE_SUCCEEDED
        if job.state != aiplatform_v1.PipelineState.PIPELINE_STATE_RUNNING:
            job.end_time = {"seconds": 1_000 + 60 * len(details)}
        if ended and self.refuses:
            details += [aiplatform_v1.PipelineTaskDetail(task_name=s, state=State.NOT_TRIGGERED) for s in STAGES[4:]]
        job.job_detail = aiplatform_v1.PipelineJobDetail(task_details=details)
        return show(job)

    def _outputs(self, job: aiplatform_v1.PipelineJob, stage: str) -> dict[str, Any]:
        if self.gcs is None:
            return {}
        passed = not self.refuses if self.says_passed is None else self.says_passed
        root = f"{job.runtime_config.gcs_output_directory}/1234/{job.name.rpartition('/')[2]}/{stage}_99"
        names = {"verify-data": ["report", "dataset"], "train": ["curves", "bundle"], "quality-gate": ["verdict"]}
        names |= {"evaluate": ["evaluation", "report"], "report-catalogue": ["page"]}
        made = names.get(stage, [])
        with tempfile.TemporaryDirectory() as scratch:
            for name in made:
                uri = f"{root}/{name}"
                if name == "verdict":
                    folder = make_verdict(Path(scratch) / name, "d" * 64, passed=passed)
                    self.gcs.put(f"{uri}/{VERDICT_JSON}", (folder / VERDICT_JSON).read_bytes())
                    self.gcs.put(f"{uri}/verdict.md", b"# verdict\n")
                elif name == "evaluation":
                    folder = make_evaluation(Path(scratch) / name, "d" * 64)
                    self.gcs.put(f"{uri}/evaluation.json", (folder / "evaluation.json").read_bytes())
                elif name in ("dataset", "bundle"):
                    self.gcs.put(f"{uri}/manifest.json", b"{}")
                else:
                    self.gcs.put(uri, f"<title>{stage}</title>".encode())
        word = "PASSED" if passed else "REFUSED"
        metadata = {"headline": f"{word}: accuracy 94.0 %", "passed": passed}
        return {
            name: {"artifacts": [{"uri": f"{root}/{name}", "metadata": metadata if name == "verdict" else {}}]}
            for name in made
        }

    def _schedule(self, parent: str, identity: str, verb: str, request: Request) -> dict[str, Any]:
        if not identity:
            if verb == "GET":
                shown = sorted(self.schedules.values(), key=lambda s: s.create_time)
                return {"schedules": [show(s) for s in shown if s.name.startswith(parent)]}
            return self._create_schedule(parent, request.body)
        name = f"{parent}/schedules/{identity}"
        if name not in self.schedules:
            raise ApiError(404, f"{name} not found")
        standing = self.schedules[name]
        if verb in ("pause", "resume"):
            active = verb == "resume"
            standing.state = aiplatform_v1.Schedule.State.ACTIVE if active else aiplatform_v1.Schedule.State.PAUSED
            return {}
        if verb == "DELETE":
            del self.schedules[name]
            return self.running(parent, "google.protobuf.Empty", {})
        if verb == "PATCH":
            sent = parse(aiplatform_v1.Schedule, request.body)
            for field in re.sub(r"([A-Z])", lambda m: "_" + m[1].lower(), request.query["updateMask"]).split(","):
                setattr(standing, field, getattr(sent, field))
        return show(standing)

    def _create_schedule(self, parent: str, body: dict[str, Any]) -> dict[str, Any]:
        schedule = parse(aiplatform_v1.Schedule, body)
        self._made += 1
        schedule.name = f"{parent}/schedules/{self._made}"
        schedule.state = aiplatform_v1.Schedule.State.ACTIVE
        schedule.create_time = {"seconds": 1_700_000_000 + self._made}
        schedule.next_run_time = {"seconds": 1_800_000_000}
        self.schedules[schedule.name] = schedule
        return show(schedule)


def stages_of(spec: dict[str, Any]) -> tuple[str, ...]:
    """The tasks that a run of the pipeline goes through, in order."""
    return CATALOGUE if spec["pipelineInfo"]["name"] == "ai-product-photo-catalogue" else STAGES


def spec_of(job: aiplatform_v1.PipelineJob) -> dict[str, Any]:
    """The pipeline spec that a job was made from."""
    document: dict[str, Any] = json_format.MessageToDict(aiplatform_v1.PipelineJob.pb(job))["pipelineSpec"]
    return document


def _given(job: aiplatform_v1.PipelineJob) -> dict[str, Any]:
    """The parameters that a job was started with."""
    document = json_format.MessageToDict(aiplatform_v1.PipelineJob.pb(job))
    given: dict[str, Any] = document["runtimeConfig"].get("parameterValues", {})
    return given
