"""Training on several machines of a Kubernetes cluster: the TrainJob that the stage asks for, follows and ends."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from components.artifacts.context import RunContext
from components.train import cluster, config
from components.train.config import Node, PlacedTrainConfig, TrainConfig
from components.train.stage import TrainSummary
from serving.detector import bundle
from serving.platform.errors import StageError
from tests.components.train.conftest import Trained, fit
from tests.components.train.packed import TINY
from tests.components.train.test_cluster import ROOT, free_port, kill
from tests.fakes.kubernetes_api import BEGUN, COMPLETE, FAILED, Condition, FakeKubernetes, Job
from tests.untraced import untraced

MANIFEST = list(yaml.safe_load_all((ROOT / "infra/kubernetes/training.yaml").read_text()))
RULES = next(part["rules"] for part in MANIFEST if part["kind"] == "Role")
SUMMARY = TrainSummary("d" * 64, "test_efficientnet", 64, 3, 2, 0, *([0.5] * 11))
IMAGE = "registry.example/train@sha256:" + "a1" * 32


@pytest.fixture
def kubernetes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """The cluster, as this process sees it from a pod of it."""
    (folder := tmp_path / "kubernetes").mkdir()
    fake = FakeKubernetes(folder, RULES)
    monkeypatch.setattr(config, "_ACCOUNT", fake.account)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(fake.port))
    yield fake
    fake.close()


class Stage:
    """The stage of one run: its own folders, and the volume that it shares with the machines."""

    def __init__(self, folder: Path, dataset: Path, trained: Path) -> None:
        self.folder, self.dataset, self.trained = folder, dataset, trained
        self.volume, self.out = folder / "volume", folder / "bundle"
        self.volume.mkdir()

    def train(self, run_id: str = "20260101_Run", **settings: object) -> TrainSummary | None:
        machines: dict[str, Any] = {
            "nodes": 3, "image": IMAGE, "cpu": 8, "memory_gb": 30, "accelerator": "nvidia.com/gpu",
            "accelerator_count": 2, "runtime": "aidetect", "shared_dir": str(self.volume),
            "request_timeout_s": 5.0, "poll_s": 0.01,
        }  # fmt: skip
        machines |= {key: settings.pop(key) for key in list(settings) if key in machines}
        placed = PlacedTrainConfig.model_validate(TINY | settings | {"cluster": machines})
        return cluster.train(self.dataset, self.out, placed, RunContext(run_id=run_id), self.folder / "curves.html")

    def answered(self, job: Job) -> Iterator[Condition]:
        """Machines that train in no time."""
        orders = Path(job["spec"]["trainer"]["args"][0])
        told = json.loads((orders / "order.json").read_text())
        shutil.copytree(self.trained, told["out"])
        Path(told["curves"]).write_text("<html>")
        (orders / "summary.json").write_text(json.dumps(asdict(SUMMARY)))
        return itertools.chain((BEGUN, ("Suspended", "waits")), itertools.repeat(COMPLETE))


@pytest.fixture
def stage(tmp_path: Path, trained: Trained) -> Stage:
    return Stage(tmp_path, trained.dataset, trained.bundle)


def posted(kubernetes: FakeKubernetes) -> list[Any]:
    return [request for request in kubernetes.requests if request.method == "POST"]


def test_the_job_is_what_the_cluster_is_asked_for_field_by_field(kubernetes: FakeKubernetes, stage: Stage) -> None:
    orders = stage.volume / "training/20260101-run/cluster"
    seen: dict[str, Any] = {}

    def machines(job: Job) -> Iterator[Condition]:
        seen.update(json.loads((orders / "order.json").read_text()))
        # the machines read the volume alone, where all of the dataset lies
        assert sorted(p.name for p in Path(seen["dataset"]).iterdir()) == sorted(
            p.name for p in stage.dataset.iterdir()
        )
        return stage.answered(job)

    kubernetes.machines = machines
    assert stage.train() == SUMMARY
    (request,) = posted(kubernetes)
    assert request.path == "/apis/trainer.kubeflow.org/v1alpha1/namespaces/team/trainjobs"
    assert request.query == {"fieldValidation": "Strict"}
    each = {"cpu": "8", "memory": "30G", "nvidia.com/gpu": "2"}
    assert request.body == {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "train-20260101-run-1", "labels": {"run-id": "20260101-run"}},
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": "aidetect"},
            "trainer": {
                "image": IMAGE,
                "command": ["python", "-m", "components.train.nodes"],
                "args": [str(orders)],
                "numNodes": 3,
                "resourcesPerNode": {"requests": each, "limits": each},
            },
        },
    }
    # the machines get the training alone: none of them asks for machines again
    assert "cluster" not in seen["config"]
    TrainConfig.model_validate(seen["config"])
    assert bundle.verify(stage.out).digest
    assert (stage.folder / "curves.html").read_text() == "<html>"
    assert list(stage.volume.rglob("*.parquet")) == [], "the volume keeps no copy of a training that is done"


def test_the_manifest_is_what_such_a_job_needs(kubernetes: FakeKubernetes, stage: Stage) -> None:
    (runtime,) = [part for part in MANIFEST if part["kind"] == "TrainingRuntime"]
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    assert (runtime["metadata"]["name"], node["name"]) == ("aidetect", "node")
    assert node["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert RULES[0]["verbs"] == ["create", "get", "list", "delete"]  # the last is asked for where a stage is stopped
    for verb in RULES[0]["verbs"][:3]:
        kubernetes.rules = [RULES[0] | {"verbs": [other for other in RULES[0]["verbs"] if other != verb]}]
        with pytest.raises(
            StageError, match=rf"403 .* cannot {verb} .*; infra/kubernetes/training.yaml has the rights"
        ):
            stage.train(f"without-{verb}")


def test_a_lost_machine_costs_a_job_and_training_goes_on(
    kubernetes: FakeKubernetes, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def lost_once(job: Job) -> Iterator[Condition]:
        return iter((BEGUN, FAILED)) if len(kubernetes.jobs) == 1 else stage.answered(job)

    kubernetes.machines = lost_once
    assert stage.train(checkpoint_dir=str(stage.volume / "kept")) == SUMMARY
    assert list(kubernetes.jobs) == ["train-20260101-run-1", "train-20260101-run-2"]
    assert "jobset failed due to one or more job failures; job 2 of at most 3 goes on" in caplog.text


@pytest.mark.parametrize(("kept", "jobs"), [(True, 3), (False, 1)])
def test_a_job_that_fails_without_a_word_ends_the_stage(
    kubernetes: FakeKubernetes, stage: Stage, kept: bool, jobs: int
) -> None:
    kubernetes.machines = lambda _: itertools.repeat(FAILED)
    with pytest.raises(StageError, match=rf"team/train-20260101-run-{jobs} FAILED: jobset failed .*; its log says why"):
        stage.train(checkpoint_dir=str(stage.volume / "kept") if kept else "")
    assert len(kubernetes.jobs) == jobs


def test_what_a_machine_says_is_the_stages_error(kubernetes: FakeKubernetes, stage: Stage) -> None:
    def diverged(job: Job) -> Iterator[Condition]:
        (Path(job["spec"]["trainer"]["args"][0]) / "error.txt").write_text("the loss became nan")
        return itertools.repeat(FAILED)

    kubernetes.machines = diverged
    with pytest.raises(StageError, match=r"^the loss became nan$"):
        stage.train(checkpoint_dir=str(stage.volume / "kept"))
    assert len(kubernetes.jobs) == 1


def test_a_stage_that_is_stopped_ends_its_job_and_one_that_is_repeated_asks_for_another(
    kubernetes: FakeKubernetes, stage: Stage
) -> None:
    def stop(_: Job) -> Iterator[Condition]:
        yield BEGUN
        os.kill(os.getpid(), signal.SIGTERM)
        yield from itertools.repeat(BEGUN)

    kubernetes.machines = stop
    with pytest.raises(StageError, match="stopped by SIGTERM"):
        stage.train()
    (ended,) = [request for request in kubernetes.requests if request.method == "DELETE"]
    assert (kubernetes.deleted, ended.query) == (["train-20260101-run-1"], {"propagationPolicy": "Foreground"})
    kubernetes.machines = stage.answered
    assert stage.train() == SUMMARY


def test_a_stage_that_died_goes_on_with_the_job_that_it_had_asked_for(
    kubernetes: FakeKubernetes, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as dies:
        dies.setattr("time.sleep", lambda _: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            stage.train(poll_s=60)
    (job,) = kubernetes.jobs.values()
    kubernetes._looks["train-20260101-run-1"] = stage.answered(job)
    assert stage.train() == SUMMARY
    assert len(posted(kubernetes)) == 1


def test_a_lost_answer_starts_no_second_job(kubernetes: FakeKubernetes, stage: Stage) -> None:
    def renewed(job: Job) -> Iterator[Condition]:
        # Kubernetes replaces a pod's token every hour, and takes the old one no more
        kubernetes.token = "token-2"
        (kubernetes.account / "token").write_text(kubernetes.token)
        return stage.answered(job)

    kubernetes.machines = renewed
    kubernetes.cut("POST", "trainjobs", carried_out=True)
    kubernetes.fail("GET", "trainjobs/", 503, 2)
    assert stage.train() == SUMMARY
    assert list(kubernetes.jobs) == ["train-20260101-run-1"]
    assert len(posted(kubernetes)) == 2


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"token": "another"}, r"401 Unauthorized; the token of the pod's service account is not taken"),
        ({"rules": []}, r"403 .* cannot list .*; infra/kubernetes/training.yaml has the rights and the runtime"),
        ({"runtimes": set()}, r'403 admission webhook .*"aidetect" not found; infra/kubernetes/training.yaml has'),
        ({"installed": False}, r"404 the server could not find .*; install Kubeflow Trainer 2 in the cluster"),
    ],
)
def test_what_the_cluster_refuses_is_one_line_with_the_fix(
    kubernetes: FakeKubernetes, stage: Stage, broken: dict[str, object], words: str
) -> None:
    for name, value in broken.items():
        setattr(kubernetes, name, value)
    with pytest.raises(StageError, match=words) as error:
        stage.train()
    assert "\n" not in str(error.value)
    assert kubernetes.jobs == {}


def test_what_is_no_answer_of_a_cluster_is_not_read_whole(
    kubernetes: FakeKubernetes, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = [{"items": "x" * (9 << 20)}, ["no document"]]
    monkeypatch.setattr(FakeKubernetes, "route", lambda *_: said[0])
    with pytest.raises(StageError, match=r"127.0.0.1:\d+ gave an answer of more than 8 MiB or 30 s; is it Kubernetes"):
        stage.train()
    del said[0]
    with pytest.raises(StageError, match=r"cannot list .*: https://127.0.0.1:\d+ answers without a document"):
        stage.train()


def test_outside_of_a_pod_or_without_its_volume_nothing_is_asked(
    kubernetes: FakeKubernetes, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StageError, match=r"kubeflow.shared_dir /no/where: no such folder in the stage's pod"):
        stage.train(shared_dir="/no/where")
    (kubernetes.account / "ca.crt").write_text("damaged")
    with pytest.raises(StageError, match=r"ca.crt: cannot be read"):
        stage.train()
    (kubernetes.account / "token").unlink()
    with pytest.raises(StageError, match=r"no service account's token"):
        stage.train()
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(StageError, match=r"from a pod of the cluster; this process is in none"):
        stage.train()
    assert kubernetes.requests == []


def test_a_server_that_the_clusters_authority_did_not_sign_is_not_told_the_token(
    kubernetes: FakeKubernetes, stage: Stage, tmp_path: Path
) -> None:
    (other := tmp_path / "other").mkdir()
    stranger = FakeKubernetes(other, RULES)
    stranger.close()
    shutil.copy(stranger.account / "ca.crt", kubernetes.account / "ca.crt")
    with pytest.raises(StageError, match=r"does not answer: .*certificate verify failed"):
        stage.train(request_timeout_s=0.1)
    assert kubernetes.requests == []


PLACE = {"PET_NODE_RANK": "1", "PET_NNODES": "2", "PET_MASTER_ADDR": "t-node-0-0.t", "PET_MASTER_PORT": "29400"}


def test_a_machine_learns_its_place_from_kubeflow_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    assert Node.from_environment() == Node(1, 2, "t-node-0-0.t", 29400)
    for name, value in (
        ("PET_NODE_RANK", "2"), ("PET_NODE_RANK", "-1"), ("PET_NNODES", "1:4"), ("PET_MASTER_ADDR", ""),
        ("PET_MASTER_PORT", "0"), ("PET_MASTER_PORT", "x"),
    ):  # fmt: skip
        with monkeypatch.context() as wrong:
            wrong.setenv(name, value)
            with pytest.raises(StageError, match=r"^PET_NODE_RANK, ") as error:
                Node.from_environment()
            assert "\n" not in str(error.value)
    monkeypatch.delenv("PET_MASTER_PORT")
    with pytest.raises(StageError, match=r"^'PET_MASTER_PORT' is not set; start this on machines of a Kubeflow Train"):
        Node.from_environment()


@pytest.mark.system
@pytest.mark.nightly
def test_two_machines_of_a_trainjob_reach_the_metrics_of_one_though_one_is_killed(
    kubernetes: FakeKubernetes, stage: Stage, tmp_path: Path
) -> None:
    """The job's own command, as two groups of processes with what Kubeflow Trainer tells each."""
    kept, nodes, killed = stage.volume / "kept", list[subprocess.Popen[str]](), list[int]()

    def machines(job: Job) -> Iterator[Condition]:
        trainer, port = job["spec"]["trainer"], free_port()
        command = [sys.executable, *trainer["command"][1:], *trainer["args"]]
        place = {"PET_NNODES": str(trainer["numNodes"]), "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(port)}
        mine = [
            subprocess.Popen(
                command, cwd=ROOT, env=untraced() | place | {"PET_NODE_RANK": str(rank), "PET_NPROC_PER_NODE": "auto"},
                text=True, stderr=subprocess.DEVNULL,
            )
            for rank in range(trainer["numNodes"])
        ]  # fmt: skip
        nodes.extend(mine)
        while any(node.poll() is None for node in mine):
            if not killed and any(kept.rglob("last.pt")):
                killed.extend(process.pid for process in kill(mine[-1]))
            yield BEGUN
        yield from itertools.repeat(COMPLETE if all(node.returncode == 0 for node in mine) else FAILED)

    kubernetes.machines = machines
    settings: dict[str, Any] = {"nodes": 2, "device": "cpu", "processes": 1, "epochs": 8, "poll_s": 0.1}
    try:
        done = stage.train(checkpoint_dir=str(kept), accelerator_count=0, **settings)
    finally:
        for node in nodes:
            with suppress(psutil.NoSuchProcess):
                kill(node)
            node.wait(30)
    assert done is not None and killed and len(kubernetes.jobs) == 2
    assert 1 <= done.resumed_from_epoch < 8
    one = fit(stage.dataset, tmp_path / "scratch", TrainConfig.model_validate(TINY | {"epochs": 8}))
    assert done.val_roc_auc == pytest.approx(one.history[-1]["val_roc_auc"], abs=0.05)
    assert bundle.verify(stage.out).digest == done.digest
