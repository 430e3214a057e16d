"""`aidetect run --on kubeflow` through KFP's own client: what is sent, followed, stopped and refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.artifacts.context import RunContext
from components.platform.tracking import record as store
from components.train.config import PlacedTrainConfig, TrainerConfig
from tests.fakes.kubeflow import FakeKubeflow
from tests.pipelines.conftest import IMAGES, Aidetect, Ran
from tests.releases import make_evaluation, make_verdict


@pytest.fixture
def settings(kubeflow: FakeKubeflow, tmp_path: Path, migrated: Path) -> list[str]:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return [
        *IMAGES,
        f"paths.workspace={tmp_path}",
        f"kubeflow.host={kubeflow.url}",
        "kubeflow.request_timeout_s=1",
        "kubeflow.poll_s=0.01",
        "kubeflow.pipeline_root=gs://bkt/oss",
        "kubeflow.service_account=pipeline-runner",
        f"tracking.uri=sqlite:///{tmp_path}/mlflow.db",
        "train.checkpoint_dir=",
        "deploy.auto=true",
    ]


def run(aidetect: Aidetect, settings: list[str], *words: str) -> Ran:
    return aidetect("run", "--on", "kubeflow", "--profile", "production", "--json", *words, settings=settings)


def test_what_is_submitted(aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str]) -> None:
    ran = run(aidetect, [*settings, "train.epochs=15"], "--reason", "dispatch")
    assert ran.code == 0, ran.err
    record = ran.document  # standard output holds the record alone
    assert (record["status"], record["resource"]) == ("submitted", "run-1")
    assert record["link"] == f"{kubeflow.url}/#/runs/details/run-1"
    (sent,) = kubeflow.runs.values()
    assert sent["display_name"] == f"ai-product-photo-detector-{record['run_id']}"
    assert sent["experiment_id"] == kubeflow.experiments["ai-product-photo-detector"]["experiment_id"]
    assert sent["service_account"] == "pipeline-runner"
    assert sent["runtime_config"]["pipeline_root"] == "gs://bkt/oss"
    parameters = sent["runtime_config"]["parameters"]
    assert parameters["train_config"]["epochs"] == 15
    assert (parameters["context"]["run_id"], parameters["context"]["reason"]) == (record["run_id"], "dispatch")
    spec = sent["pipeline_spec"].get("pipeline_spec", sent["pipeline_spec"])
    trained = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert trained["resources"]["accelerator"]["type"] == "nvidia.com/gpu"
    written = json.loads((Path(record["folder"]) / "pipeline.json").read_text())
    assert spec["deploymentSpec"]["executors"].keys() == written["deploymentSpec"]["executors"].keys()


def test_several_machines_are_asked_for_by_the_stage_and_its_own_is_small(
    aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str]
) -> None:
    several = ["machines.train.nodes=3", "machines.train.accelerator_count=2"]
    shared = ["kubeflow.trainer_runtime=aidetect", "kubeflow.shared_dir=/mnt/training"]
    for missing, words in (
        ([], "machines.train.nodes 3: set kubeflow.trainer_runtime and kubeflow.shared_dir (infra/kubernetes/training"),
        (shared[:1], "machines.train.nodes 3: set kubeflow.shared_dir (infra"),
        ([shared[0], "kubeflow.shared_dir=mnt"], "kubeflow.shared_dir 'mnt': give the folder where pods mount it"),
        (shared, "one that goes away starts all again; set train.checkpoint_dir to a folder below /mnt/training"),
    ):
        ran = run(aidetect, [*settings, *several, *missing])
        assert ran.code == 1 and words in ran.err, ran.err
    assert kubeflow.runs == {}
    kept = "train.checkpoint_dir=/mnt/training/checkpoints"
    assert run(aidetect, [*settings, *several, *shared, kept]).code == 0
    (sent,) = kubeflow.runs.values()
    told = PlacedTrainConfig.model_validate(
        sent["runtime_config"]["parameters"]["train_config"]
    )  # as the stage reads it
    assert isinstance(told.cluster, TrainerConfig)
    assert (told.device, told.cluster.model_dump()) == (
        "cuda",
        {
            "nodes": 3, "image": told.cluster.image, "cpu": 8, "memory_gb": 30, "accelerator": "nvidia.com/gpu",
            "accelerator_count": 2, "runtime": "aidetect", "shared_dir": "/mnt/training", "request_timeout_s": 1.0,
            "poll_s": 0.01,
        },
    )  # fmt: skip
    spec = sent["pipeline_spec"].get("pipeline_spec", sent["pipeline_spec"])
    own = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert own["image"] == told.cluster.image
    assert "accelerator" not in own["resources"]
    assert own["resources"]["cpuLimit"] == 4.0


@pytest.mark.parametrize(
    ("change", "status", "code", "error"),
    [
        ({}, "deployed", 0, ""),
        ({"refuses": True}, "refused", 2, ""),
        ({"fails": "train"}, "failed", 1, "train: train says why"),
    ],
    ids=["deployed", "refused", "failed"],
)
def test_a_run_is_followed_to_its_end(
    aidetect: Aidetect,
    kubeflow: FakeKubeflow,
    settings: list[str],
    change: dict[str, Any],
    status: str,
    code: int,
    error: str,
) -> None:
    for key, value in change.items():
        setattr(kubeflow, key, value)
    ran = run(aidetect, settings, "--sync")
    record = ran.document
    assert (ran.code, record["status"], record["error"]) == (code, status, error)
    assert record["seconds"] == 60.0 * {"deployed": 6, "refused": 4, "failed": 2}[status]


def test_verdict_and_figures_come_from_the_tracking_server(
    aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str], tmp_path: Path
) -> None:
    record = run(aidetect, settings).document
    context = RunContext(
        run_id=record["run_id"],
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        artifact_root=(tmp_path / "mlflow-artifacts").as_uri(),
    )
    evaluation = make_evaluation(tmp_path / "evaluation", "d" * 64)
    verdict = make_verdict(tmp_path / "verdict", "d" * 64)
    store(context, metrics={}, files=[evaluation / "evaluation.json"], folder="evaluation")
    store(context, metrics={}, files=[verdict / "verdict.json"], folder="verdict")
    followed = aidetect("runs", "follow", record["run_id"], "--json", settings=settings)
    assert followed.code == 0, followed.err
    assert (followed.document["status"], followed.document["headline"]) == ("deployed", "PASSED: accuracy 94.0 %")
    assert followed.document["metrics"]["accuracy"] == pytest.approx(0.94)


def test_cancel(aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str]) -> None:
    record = run(aidetect, settings).document
    assert aidetect("runs", "cancel", record["run_id"], settings=settings).code == 0
    assert kubeflow.changes[-1] == "POST run-1:terminate"
    shown = aidetect("runs", "show", record["run_id"], "--json", settings=settings).document
    assert (shown["status"], shown["error"]) == ("interrupted", "cancelled")


@pytest.mark.parametrize("code", [401, 403, 404, 429, 503])
def test_a_refusal_is_one_line_and_a_failed_record(
    aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str], code: int
) -> None:
    kubeflow.fail("POST", "runs", code)
    ran = run(aidetect, settings)
    assert ran.code == 1 and f"{kubeflow.url}: {code} " in ran.err
    assert len(ran.err.splitlines()) == 1
    # a run has no id of our choosing: asking twice could start two
    assert len([r for r in kubeflow.requests if r.method == "POST" and r.path.endswith("/runs")]) == 1
    assert kubeflow.runs == {}
    listed = aidetect("runs", "list", "--json", settings=settings).document
    assert [r["status"] for r in listed] == ["failed"]


def test_looking_survives_a_server_that_is_busy_for_a_moment(
    aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str]
) -> None:
    kubeflow.fail("GET", "/runs/", 503, times=2)
    assert run(aidetect, settings, "--sync").document["status"] == "deployed"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "data.uri=s3://bkt/photos",
            "data.uri 's3://bkt/photos': no stage reads s3://; give gs:// or hf:// or a",
        ),
        ("data.uri=minio://bkt/photos", "data.uri 'minio://bkt/photos': no stage reads minio://"),
        (
            "data.uri=data/sample",
            "data.uri 'data/sample' is on this disk: Kubeflow needs gs:// or hf:// or a",
        ),
        ("evaluate.outside=s3://bkt/o", "evaluate.outside 's3://bkt/o': no stage reads s3://; give gs:// or a folder"),
        ("evaluate.champion_uri=s3://bkt/m", "evaluate.champion_uri 's3://bkt/m': no stage reads s3://"),
        ("deploy.ledger_path=s3://bkt/l.jsonl", "deploy.ledger_path 's3://bkt/l.jsonl': no stage reads s3://"),
        (
            "train.checkpoint_dir=gs://bkt/c",
            "train.checkpoint_dir 'gs://bkt/c': buckets are mounted on Vertex AI only; give a folder that the pods "
            "mount (/...), or leave it empty",
        ),
        ("train.checkpoint_dir=minio://bkt/c", "train.checkpoint_dir 'minio://bkt/c': no stage reads minio://"),
        ("kubeflow.pipeline_root=bkt/oss", "kubeflow.pipeline_root 'bkt/oss': write gs://, s3:// or minio://"),
        ("kubeflow.pipeline_root=https://bkt/oss", "kubeflow.pipeline_root 'https://bkt/oss'"),
        ("tracking.uri=", "set tracking.uri to an MLflow server"),
    ],
)
def test_what_no_stage_there_can_read_is_refused_by_its_key(
    aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str], change: str, message: str
) -> None:
    ran = aidetect("doctor", "--profile", "production", "--json", settings=[*settings, change])
    found = [f"{f['subject']} {f['message']}" for f in ran.document if f["status"] == "error"]
    assert ran.code == 1 and any(message in said for said in found), found
    assert kubeflow.changes == []


def test_all_that_no_stage_there_can_read_is_told_at_once_and_nothing_is_sent(
    aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str]
) -> None:
    wrong = ["data.uri=minio://bkt/p", "train.checkpoint_dir=gs://bkt/c", "kubeflow.pipeline_root=bkt"]
    ran = aidetect(
        "schedule", "apply", settings=[*settings, "schedule.enabled=true", "schedule.target=kubeflow", *wrong]
    )
    assert ran.code == 1 and len(ran.err.splitlines()) == 1
    assert all(key.partition("=")[0] in ran.err for key in wrong), ran.err
    assert kubeflow.changes == []


def test_stages_hand_each_other_artifacts_through_whatever_store_the_server_has(
    aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str]
) -> None:
    for root in ("minio://mlpipeline/v2/artifacts", "s3://bkt/oss?region=eu"):
        assert run(aidetect, [*settings, f"kubeflow.pipeline_root={root}"], "--sync").document["status"] == "deployed"


def test_a_service_account_that_is_not_there_is_the_runs_error(aidetect: Aidetect, settings: list[str]) -> None:
    ran = run(aidetect, [*settings, "kubeflow.service_account=nobody"], "--sync")
    assert ran.code == 1 and 'serviceaccount "nobody" not found' in ran.document["error"]


def test_a_server_of_many_users_wants_a_token_and_a_namespace(
    aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str], tmp_path: Path
) -> None:
    kubeflow.token = "of-ada"
    token = tmp_path / "token"

    def doctor(*more: str) -> tuple[str, str]:
        ran = aidetect("doctor", "--profile", "production", "--json", settings=[*settings, *more])
        (found,) = [f for f in ran.document if f["subject"] == "kubeflow.host"]
        return found["status"], found["message"]

    assert "has many users: set kubeflow.namespace to yours" in run(aidetect, settings).err
    team, signed = "kubeflow.namespace=team", f"kubeflow.token_file={token}"
    nobody = run(aidetect, [*settings, team]).err
    assert ": 401 " in nobody and "set kubeflow.token_file to a token" in nobody
    assert f"kubeflow.token_file {token}: no such file" in run(aidetect, [*settings, team, signed]).err
    token.write_text("of-ada")
    stranger = run(aidetect, [*settings, "kubeflow.namespace=others", signed]).err
    assert ": 403 " in stranger and "ask for access to kubeflow.namespace" in stranger
    assert doctor("kubeflow.namespace=others", signed)[0] == "error"
    assert kubeflow.changes == [] and kubeflow.runs == {}
    assert run(aidetect, [*settings, team, signed]).code == 0
    assert doctor(team, signed) == ("ok", f"{kubeflow.url} answers; runs go to namespace team")


def test_doctor_looks_at_a_standalone_server_and_names_each_key(
    aidetect: Aidetect, kubeflow: FakeKubeflow, settings: list[str]
) -> None:
    ran = aidetect("doctor", "--profile", "production", "--json", settings=[*settings, "data.uri=minio://bkt/photos"])
    found = {f["subject"]: (f["status"], f["message"]) for f in ran.document}
    assert found["kubeflow.host"] == ("ok", f"{kubeflow.url} answers; runs go to its own namespace")
    assert found["data.uri"][0] == "error" and "no stage reads minio://" in found["data.uri"][1]
    assert ran.code == 1 and not [subject for subject in found if subject.startswith("vertex")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("kubeflow.host=", "set kubeflow.host"),
        ("kubeflow.host=http://127.0.0.1:9", "does not answer"),
    ],
)
def test_no_server_is_one_line(aidetect: Aidetect, settings: list[str], change: str, message: str) -> None:
    ran = run(aidetect, [*settings, change])
    assert ran.code == 1 and message in ran.err
    assert len(ran.err.splitlines()) == 1
