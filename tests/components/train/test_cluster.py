"""Training on several machines: the custom job that the stage asks for, and two machines that train together."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from google.cloud import aiplatform_v1 as vertex

from components.artifacts.context import RunContext
from components.train import cluster
from components.train.config import PlacedTrainConfig, TrainConfig
from components.train.stage import TrainSummary
from serving.detector import bundle
from serving.platform.errors import StageError
from tests.components.train.conftest import fit
from tests.components.train.packed import TINY
from tests.fakes.policy import Policy, plan_of
from tests.fakes.vertex_jobs import FAILED, PENDING, RUNNING, SUCCEEDED, FakeVertexJobs, Strategy, preempt, succeed
from tests.untraced import untraced

ROOT = Path(__file__).resolve().parents[3]
SUMMARY = TrainSummary("d" * 64, "test_efficientnet", 64, 3, 2, 0, *([0.5] * 11))


@pytest.fixture
def vertex_ai() -> Iterator[FakeVertexJobs]:
    fake = FakeVertexJobs()
    yield fake
    fake.close()


def placed(fake: FakeVertexJobs, **settings: object) -> PlacedTrainConfig:
    machines: dict[str, Any] = {
        "nodes": 3, "spot": False, "project": "proj", "region": "europe-west1",
        "image": "registry.example/train@sha256:" + "a1" * 32,
        "machine_type": "n1-standard-8", "accelerator": "NVIDIA_TESLA_T4", "accelerator_count": 2,
        "service_account": "pipeline@proj.iam.gserviceaccount.com", "network": "projects/1/global/networks/n",
        "labels": {"team": "trust"}, "api_endpoint": fake.url, "poll_s": 0.01, "request_timeout_s": 5.0,
    }  # fmt: skip
    machines |= {key: settings.pop(key) for key in list(settings) if key in machines}
    return PlacedTrainConfig.model_validate(TINY | settings | {"cluster": machines})


def ask(fake: FakeVertexJobs, folder: Path, run_id: str = "20260101-Run", **settings: object) -> TrainSummary | None:
    out = folder / "bundle"
    return cluster.train(
        folder / "data", out, placed(fake, **settings), RunContext(run_id=run_id), folder / "curves.html"
    )


def answered(job: vertex.CustomJob) -> Iterator[vertex.JobState]:
    """Machines that train in no time."""
    folder = Path(job.job_spec.worker_pool_specs[0].container_spec.args[0])
    (folder / "summary.json").write_text(json.dumps(asdict(SUMMARY)))
    return succeed(job)


def test_the_job_is_what_vertex_ai_is_asked_for_field_by_field(vertex_ai: FakeVertexJobs, tmp_path: Path) -> None:
    vertex_ai.machines = answered
    assert ask(vertex_ai, tmp_path) == SUMMARY
    created = [r for r in vertex_ai.requests if r.method == "POST"]
    assert [request.path for request in created] == ["/v1/projects/proj/locations/europe-west1/customJobs"]
    machine = {"machineType": "n1-standard-8", "acceleratorType": 5, "acceleratorCount": 2}
    container = {
        "imageUri": "registry.example/train@sha256:" + "a1" * 32,
        "command": ["python", "-m", "components.train.nodes"],
        "args": [str(tmp_path / "cluster")],
    }
    assert created[0].body == {
        "displayName": "train-20260101-run",
        "labels": {"team": "trust", "run-id": "20260101-run"},
        "jobSpec": {
            "workerPoolSpecs": [
                {"machineSpec": machine, "replicaCount": "1", "containerSpec": container},
                {"machineSpec": machine, "replicaCount": "2", "containerSpec": container},
            ],
            "scheduling": {"restartJobOnWorkerRestart": True},
            "serviceAccount": "pipeline@proj.iam.gserviceaccount.com",
            "network": "projects/1/global/networks/n",
        },
    }
    told = json.loads((tmp_path / "cluster/order.json").read_text())
    # the machines get the training alone: none of them asks for machines again
    assert "cluster" not in told["config"]
    TrainConfig.model_validate(told["config"])
    assert (told["out"], told["context"]["run_id"]) == (str(tmp_path / "bundle"), "20260101-Run")


def test_without_accelerators_none_is_named(vertex_ai: FakeVertexJobs, tmp_path: Path) -> None:
    vertex_ai.machines = answered
    ask(vertex_ai, tmp_path, accelerator="", accelerator_count=0, nodes=2, service_account="", network="")
    [job] = vertex_ai.jobs.values()
    assert [pool.machine_spec.accelerator_count for pool in job.job_spec.worker_pool_specs] == [0, 0]


def test_a_stage_that_is_started_again_goes_on_with_its_job(vertex_ai: FakeVertexJobs, tmp_path: Path) -> None:
    vertex_ai.machines = answered
    ask(vertex_ai, tmp_path)
    assert ask(vertex_ai, tmp_path) == SUMMARY  # its job has succeeded: nothing is trained again
    assert len(vertex_ai.jobs) == 1
    ask(vertex_ai, tmp_path, run_id="another")
    assert len(vertex_ai.jobs) == 2


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_lost_answer_starts_no_second_job(vertex_ai: FakeVertexJobs, tmp_path: Path, carried_out: bool) -> None:
    vertex_ai.machines = answered
    vertex_ai.cut("POST", "/customJobs", carried_out)
    if carried_out:
        assert ask(vertex_ai, tmp_path) == SUMMARY
        assert len(vertex_ai.jobs) == 1
        return
    with pytest.raises(StageError, match="submit a training on 3 machines to Vertex AI: "):
        ask(vertex_ai, tmp_path)
    assert not vertex_ai.jobs


def test_a_job_that_loses_a_machine_goes_on_from_its_checkpoint_and_not_for_ever(
    vertex_ai: FakeVertexJobs, tmp_path: Path
) -> None:
    def lost(job: vertex.CustomJob) -> Iterator[vertex.JobState]:
        job.error = {"code": 9, "message": "The replica workerpool1-0 exited with\n a non-zero status of 1."}
        return itertools.chain([RUNNING], itertools.repeat(FAILED))

    def lost_once(job: vertex.CustomJob) -> Iterator[vertex.JobState]:
        return answered(job) if len(vertex_ai.jobs) > 1 else lost(job)

    vertex_ai.machines = lost_once
    assert ask(vertex_ai, tmp_path, checkpoint_dir=str(tmp_path / "kept")) == SUMMARY
    assert len(vertex_ai.jobs) == 2
    vertex_ai.machines = lost
    with pytest.raises(StageError, match=r"europe-west1/5 FAILED: The replica .* status of 1\.; its log says why"):
        ask(vertex_ai, tmp_path, run_id="again", checkpoint_dir=str(tmp_path / "kept"))
    assert len(vertex_ai.jobs) == 5
    with pytest.raises(StageError, match="europe-west1/6 FAILED"):
        ask(vertex_ai, tmp_path, run_id="without")  # nothing was kept that another could go on from
    assert len(vertex_ai.jobs) == 6


def test_a_spot_machine_that_is_taken_away_is_asked_for_again_and_training_goes_on(
    vertex_ai: FakeVertexJobs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = str(tmp_path / "kept")

    def taken_twice(job: vertex.CustomJob) -> Iterator[vertex.JobState]:
        return answered(job) if len(vertex_ai.jobs) > 2 else preempt(job)

    vertex_ai.machines = taken_twice
    assert ask(vertex_ai, tmp_path, nodes=1, spot=True, checkpoint_dir=kept) == SUMMARY
    first, *others = vertex_ai.jobs.values()
    # one machine has nobody to meet, and needs no CLUSTER_SPEC
    [pool] = first.job_spec.worker_pool_specs
    assert (pool.replica_count, list(pool.container_spec.args)) == (1, [str(tmp_path / "cluster"), "--one"])
    assert first.job_spec.scheduling.strategy == Strategy.SPOT
    assert [other.job_spec for other in others] == [first.job_spec] * 2
    told = [line.getMessage() for line in caplog.records if "goes on from the last checkpoint" in line.getMessage()]
    assert [line.partition("; ")[2] for line in told] == [
        f"job {number} of at most 8 goes on from the last checkpoint in 0 s" for number in (2, 3)
    ]
    assert "FAILED: STOCKOUT: the machines of workerpool0 were preempted." in told[0]


def test_spot_machines_are_not_asked_for_for_ever_nor_beyond_their_quota(
    vertex_ai: FakeVertexJobs, tmp_path: Path
) -> None:
    kept = str(tmp_path / "kept")
    vertex_ai.machines = preempt
    with pytest.raises(StageError, match=r"/8 FAILED: STOCKOUT.*; so did all 8 .*: set machines\.train\.spot to false"):
        ask(vertex_ai, tmp_path, spot=True, checkpoint_dir=kept, poll_s=0.001)
    assert [len(job.job_spec.worker_pool_specs) for job in vertex_ai.jobs.values()] == [2] * 8
    vertex_ai.spot_t4s = 1
    with pytest.raises(
        StageError, match=r"a training on 1 spot machine to .*custom_model_training_preemptible_nvidia_t4"
    ):
        ask(vertex_ai, tmp_path, "quota", nodes=1, spot=True, checkpoint_dir=kept, request_timeout_s=0.3)
    assert len(vertex_ai.jobs) == 8


def test_what_a_machine_says_is_the_stages_error_and_is_not_tried_again(
    vertex_ai: FakeVertexJobs, tmp_path: Path
) -> None:
    def diverged(job: vertex.CustomJob) -> Iterator[vertex.JobState]:
        folder = Path(job.job_spec.worker_pool_specs[0].container_spec.args[0])
        (folder / "error.txt").write_text("the loss became nan")
        return itertools.repeat(FAILED)

    vertex_ai.machines = diverged
    with pytest.raises(StageError, match=r"^the loss became nan$"):
        ask(vertex_ai, tmp_path, checkpoint_dir=str(tmp_path / "kept"))
    assert len(vertex_ai.jobs) == 1


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED", "PARTIALLY_SUCCEEDED"])
def test_a_job_that_ends_otherwise_is_told_as_that_and_not_asked_for_again(
    vertex_ai: FakeVertexJobs, tmp_path: Path, state: str
) -> None:
    vertex_ai.machines = lambda _: itertools.chain(
        (PENDING, RUNNING), itertools.repeat(vertex.JobState.__members__[f"JOB_STATE_{state}"])
    )
    with pytest.raises(StageError, match=rf"^the training job europe-west1/1 {state}") as caught:
        ask(vertex_ai, tmp_path, checkpoint_dir=str(tmp_path / "kept"))
    assert "\n" not in str(caught.value)
    assert (len(vertex_ai.jobs), vertex_ai.cancelled) == (1, [])


def test_a_job_that_waits_or_cannot_be_looked_at_for_a_while_goes_on(vertex_ai: FakeVertexJobs, tmp_path: Path) -> None:
    waits = [
        vertex.JobState.__members__[f"JOB_STATE_{name}"]
        for name in ("QUEUED", "PENDING", "PAUSED", "UPDATING", "RUNNING")
    ]
    vertex_ai.machines = lambda job: itertools.chain(waits, answered(job))
    for code in (429, 500, 502, 503, 504):
        vertex_ai.fail("GET", "/customJobs/1", code, times=1)
    vertex_ai.cut("GET", "/customJobs/1", carried_out=True)
    assert ask(vertex_ai, tmp_path) == SUMMARY
    assert (len(vertex_ai.jobs), vertex_ai.cancelled) == (1, [])
    # who may not look any more cannot wait: what is paid for is ended, as far as that goes
    vertex_ai.fail("GET", "/customJobs/2", 403)
    with pytest.raises(StageError, match="ask Vertex AI about the training job: 403"):
        ask(vertex_ai, tmp_path, "another")
    assert [name.rpartition("/")[2] for name in vertex_ai.cancelled] == ["2"]


def test_a_stage_that_is_stopped_ends_its_job(vertex_ai: FakeVertexJobs, tmp_path: Path) -> None:
    def stop(_: vertex.CustomJob) -> Iterator[vertex.JobState]:
        yield RUNNING
        os.kill(os.getpid(), signal.SIGTERM)
        yield from itertools.repeat(RUNNING)

    vertex_ai.machines = stop
    with pytest.raises(StageError, match="stopped by SIGTERM"):
        ask(vertex_ai, tmp_path)
    assert vertex_ai.cancelled == list(vertex_ai.jobs)


def test_what_google_refuses_is_one_line(vertex_ai: FakeVertexJobs, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"submit a training on 3 machines to Vertex AI: 400 .*machine_type") as error:
        ask(vertex_ai, tmp_path, machine_type="n1-nothing")
    assert "\n" not in str(error.value)
    vertex_ai.fail("POST", "/customJobs", 403)
    with pytest.raises(StageError, match=r"403 .*grant the calling service account the role it lacks"):
        ask(vertex_ai, tmp_path)


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_account_of_the_pipeline_may_ask_for_machines_and_needs_each_grant(
    vertex_ai: FakeVertexJobs, tmp_path: Path, environment: str
) -> None:
    grant = 'iam.google_service_account_iam_member.acts_as["pipeline pipeline"]'
    for without in ("", grant):
        vertex_ai.policy = policy = Policy(plan_of(environment, f"module.platform.module.{without}" if without else ""))
        policy.as_account("pipeline", "train on several machines")
        account = policy.caller.removeprefix("serviceAccount:")
        vertex_ai.machines = answered
        if not without:
            assert ask(vertex_ai, tmp_path, service_account=account) == SUMMARY
            continue
        with pytest.raises(StageError, match=r"403 .*Permission 'iam\.serviceAccounts\.actAs' denied"):
            ask(vertex_ai, tmp_path, run_id="without", service_account=account)


def cluster_spec(kind: str, index: int, port: int = 2222) -> str:
    """As Vertex AI writes it for two machines."""
    pools = {"workerpool0": [f"127.0.0.1:{port}"], "workerpool1": [f"127.0.0.2:{port}"]}
    return json.dumps({"cluster": pools, "environment": "cloud", "task": {"type": kind, "index": index}})


class Loopback:
    """The machines of a job as processes of this one, each on an address of its own, as Vertex AI starts them."""

    def __init__(self, kill_once: Path) -> None:
        self.kill_once = kill_once
        """A checkpoint: once it stands, all of one machine is killed, one time."""
        self.killed: list[int] = []
        self.said: list[str] = []
        self.nodes: list[subprocess.Popen[str]] = []

    def close(self) -> None:
        """End what a failed test left."""
        for node in self.nodes:
            with suppress(psutil.NoSuchProcess):
                kill(node)
            node.wait(30)

    def __call__(self, job: vertex.CustomJob) -> Iterator[vertex.JobState]:
        container = job.job_spec.worker_pool_specs[0].container_spec
        command = [sys.executable, *container.command[1:], *container.args]
        port = free_port()
        nodes: list[subprocess.Popen[str]] = []
        alone = len(job.job_spec.worker_pool_specs) == 1
        for rank, pool in enumerate(job.job_spec.worker_pool_specs):
            assert pool.replica_count == 1
            place = {} if alone else {"CLUSTER_SPEC": cluster_spec(f"workerpool{rank}", 0, port)}
            environment = untraced() | place
            nodes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
        self.nodes += nodes
        readers = [threading.Thread(target=self._read, args=(node,)) for node in nodes]
        for reader in readers:
            reader.start()
        yield PENDING
        while any(node.poll() is None for node in nodes):
            if not self.killed and any(self.kill_once.rglob("last.pt")):
                self.killed = [p.pid for p in kill(nodes[-1])]
            yield RUNNING
        for reader in readers:
            reader.join()
        while True:
            yield SUCCEEDED if all(node.returncode == 0 for node in nodes) else FAILED

    def _read(self, node: "subprocess.Popen[str]") -> None:
        assert node.stderr is not None
        self.said += node.stderr.readlines()


def kill(node: "subprocess.Popen[str]") -> list[psutil.Process]:
    """Kill -9 a machine: all of its processes at once."""
    processes = [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]
    for process in processes:
        process.kill()
    return processes


def free_port() -> int:
    """A port below those that the kernel gives to outgoing connections: none of them takes it meanwhile."""
    for port in range(20_000 + os.getpid() % 5_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


@pytest.mark.system
@pytest.mark.nightly
@pytest.mark.parametrize(("nodes", "spot"), [(2, False), (1, True)], ids=["two", "a spot one"])
def test_machines_of_a_job_reach_the_metrics_of_a_training_that_nobody_disturbed_though_one_is_killed(
    toy_data: Path, vertex_ai: FakeVertexJobs, tmp_path: Path, nodes: int, spot: bool
) -> None:
    kept = str(tmp_path / "kept")
    config = placed(
        vertex_ai, nodes=nodes, spot=spot, device="cpu", processes=1, epochs=8, checkpoint_dir=kept, poll_s=0.1
    )
    with closing(Loopback(tmp_path / "kept")) as machines:
        vertex_ai.machines = machines
        done = cluster.train(toy_data, tmp_path / "b", config, RunContext(run_id="r"), tmp_path / "curves.html")
    assert machines.killed, "".join(machines.said)[-3000:]
    assert done is not None and len(vertex_ai.jobs) == 2
    assert 1 <= done.resumed_from_epoch < 8
    one = fit(toy_data, tmp_path / "scratch", TrainConfig.model_validate(TINY | {"epochs": 8}))
    assert done.val_roc_auc == pytest.approx(one.history[-1]["val_roc_auc"], abs=0.05)
    assert bundle.verify(tmp_path / "b").digest == done.digest
    assert (tmp_path / "curves.html").is_file()
