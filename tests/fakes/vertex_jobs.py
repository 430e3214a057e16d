"""Vertex AI's custom jobs on loopback: bodies parsed by Google's own protos, states that advance."""

import re
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any, Final

from google.cloud import aiplatform_v1 as vertex

from tests.fakes.google_rest import ApiError, GoogleRest, Request
from tests.fakes.policy import Policy
from tests.fakes.vertex import parse, show

PENDING, RUNNING, SUCCEEDED, FAILED, CANCELLED = (
    vertex.JobState(getattr(vertex.JobState, f"JOB_STATE_{name}"))
    for name in ("PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED")
)
Machines = Callable[[vertex.CustomJob], Iterator[vertex.JobState]]
"""What the machines of a job do: its state at every look."""
_MACHINE: Final = re.compile(r"(n1-(standard|highmem|highcpu)|g2-standard)-\d+")
_LABEL: Final = re.compile(r"[a-z0-9_-]{0,63}")


Strategy = vertex.Scheduling.Strategy
_T4 = vertex.AcceleratorType.NVIDIA_TESLA_T4


def succeed(_: vertex.CustomJob) -> Iterator[vertex.JobState]:
    """A job without anything to do."""
    return chain((PENDING, RUNNING), repeat(SUCCEEDED))


def preempt(job: vertex.CustomJob) -> Iterator[vertex.JobState]:
    """Machines that are taken away, as only spot ones are: the job fails, and what it says is Compute Engine's."""
    if job.job_spec.scheduling.strategy != Strategy.SPOT:
        raise AssertionError("only spot machines are taken away")
    job.error = {"code": 8, "message": "STOCKOUT: the machines of workerpool0 were preempted."}
    return chain((PENDING, RUNNING), repeat(FAILED))


class FakeVertexJobs(GoogleRest):
    """Custom jobs of any project and region; `machines` says what becomes of one."""

    def __init__(self, machines: Machines = succeed) -> None:
        super().__init__()
        self.machines = machines
        self.jobs: dict[str, vertex.CustomJob] = {}
        self.states: dict[str, Iterator[vertex.JobState]] = {}
        self.cancelled: list[str] = []
        self.spot_t4s = 16
        """That the project may train on at once; beyond it Google refuses with the quota's name."""

    def ask(self, request: Request, policy: Policy) -> None:
        """A job runs as an account that its caller must be allowed to act as, be it the caller's own."""
        verb = request.path.partition(":")[2] or request.method
        does = {"POST": "create", "cancel": "cancel"}.get(verb) or ("get" if "/customJobs/" in request.path else "list")
        policy.require(f"aiplatform.customJobs.{does}")
        if does == "create":
            account = request.body.get("jobSpec", {}).get("serviceAccount", "")
            policy.require("iam.serviceAccounts.actAs", f"account {account}")

    def route(self, request: Request) -> dict[str, Any]:
        """Create, list, get and cancel."""
        found = re.fullmatch(r"/v1/(projects/[^/]+/locations/[^/]+/customJobs)(?:/([^/:]+))?(?::(\w+))?", request.path)
        if found is None:
            raise ApiError(404, f"{request.path} not found")
        kind, identity, verb = found.groups()
        if not identity:
            return self._create(kind, request.body) if request.method == "POST" else self._list(kind, request)
        name = f"{kind}/{identity}"
        if name not in self.jobs:
            raise ApiError(404, f"{name} not found")
        job = self.jobs[name]
        if verb == "cancel":
            self.cancelled.append(name)
            job.state = CANCELLED
            return {}
        if name not in self.cancelled:
            job.state = next(self.states[name])
        return show(job)

    def _create(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        job = parse(vertex.CustomJob, body)
        _refuse(job)
        if (wanted := _spot_t4s(job)) > self.spot_t4s:
            metric = "aiplatform.googleapis.com/custom_model_training_preemptible_nvidia_t4_gpus"
            raise ApiError(429, f"The following quota metrics exceed quota limits: {metric} ({wanted})")
        job.name, job.state = f"{kind}/{len(self.jobs) + 1}", PENDING
        self.jobs[job.name] = job
        self.states[job.name] = self.machines(job)
        return show(job)

    def _list(self, kind: str, request: Request) -> dict[str, Any]:
        asked = re.fullmatch(r'display_name="([^"]+)"', request.query.get("filter", ""))
        if asked is None:
            raise ApiError(400, f"Invalid filter {request.query.get('filter')!r}")
        jobs = [j for j in self.jobs.values() if j.name.startswith(kind) and j.display_name == asked[1]]
        return {"customJobs": [show(job) for job in reversed(jobs)]}


def _spot_t4s(job: vertex.CustomJob) -> int:
    pools = job.job_spec.worker_pool_specs if job.job_spec.scheduling.strategy == Strategy.SPOT else ()
    return sum(
        pool.machine_spec.accelerator_count * pool.replica_count
        for pool in pools
        if pool.machine_spec.accelerator_type == _T4
    )


def _refuse(job: vertex.CustomJob) -> None:
    """What Vertex AI does not take.

    Raises:
        ApiError: 400, with the field.
    """
    pools = list(job.job_spec.worker_pool_specs)
    machines = [pool.machine_spec for pool in pools]
    scheduling = job.job_spec.scheduling
    problems = {
        "display_name": not 0 < len(job.display_name) <= 128,
        "worker_pool_specs": not 0 < len(pools) <= 4,
        "worker_pool_specs[0].replica_count": not pools or pools[0].replica_count != 1,
        "replica_count": any(pool.replica_count < 1 for pool in pools),
        "container_spec.image_uri": any(not pool.container_spec.image_uri for pool in pools),
        "machine_spec.machine_type": any(not _MACHINE.fullmatch(machine.machine_type) for machine in machines),
        "machine_spec.accelerator_type": any(bool(m.accelerator_type) != bool(m.accelerator_count) for m in machines),
        # a wait is flex-start's; spot machines are never those of a reservation
        "scheduling.max_wait_duration": bool(scheduling.max_wait_duration)
        and scheduling.strategy != Strategy.FLEX_START,
        "machine_spec.reservation_affinity": scheduling.strategy == Strategy.SPOT
        and any(bool(machine.reservation_affinity) for machine in machines),
        "labels": any(not _LABEL.fullmatch(word) for pair in job.labels.items() for word in pair),
    }
    for name, wrong in problems.items():
        if wrong:
            raise ApiError(400, f"{name} has an invalid value")
