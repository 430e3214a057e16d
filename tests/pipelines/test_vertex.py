"""Vertex AI through the real client library: what is sent, what is refused before, what faults leave behind."""

import json
from pathlib import Path
from typing import Any

import pytest

from components.train.config import ClusterConfig, PlacedTrainConfig
from pipelines.config import load_config
from pipelines.launch import Order, launch
from pipelines.preflight import check_cloud
from pipelines.runs import RunRecord, list_runs
from pipelines.settings.pipeline import PipelineConfig
from pipelines.settings.places import Machine
from pipelines.targets import vertex
from pipelines.targets.registry import open_target
from pipelines.targets.target import follow
from serving.platform.errors import CompileError, PreflightError, StageError
from tests.fakes.vertex_pipelines import FakeVertexPipelines
from tests.pipelines.conftest import vertex_sets
from tests.pipelines.test_compile import ROOT


def configuration(tmp_path: Path, cloud: FakeVertexPipelines, *extra: str) -> PipelineConfig:
    sets = [*vertex_sets(tmp_path, cloud), *extra]
    return load_config("production", sets, ROOT / "pipeline_config.yaml", {})


def run(config: PipelineConfig, reason: str = "manual", sync: bool = True) -> RunRecord:
    lines: list[str] = []
    return launch(config, Order("vertex", "production", (), reason), lambda _, line: lines.append(line), sync)


def test_what_is_submitted_field_by_field(tmp_path: Path, cloud: FakeVertexPipelines) -> None:
    config = configuration(tmp_path, cloud, "train.epochs=15", "deploy.auto=false")
    record = run(config, reason="drift: score moved", sync=False)
    (request,) = [request for request in cloud.requests if request.method != "GET"]
    assert (request.method, request.path) == ("POST", "/v1/projects/proj/locations/europe-west1/pipelineJobs")
    assert request.query["pipelineJobId"] == f"ai-product-photo-detector-{record.run_id}"
    (job,) = cloud.jobs.values()
    assert job.service_account == "pipeline@proj.iam.gserviceaccount.com"
    assert job.network == "projects/1/global/networks/n"
    assert job.runtime_config.gcs_output_directory == "gs://bkt/pipeline-root"
    assert job.runtime_config.failure_policy.name == "PIPELINE_FAILURE_POLICY_FAIL_FAST"
    assert dict(job.labels)["team"] == "trust"
    assert dict(job.labels)["reason"] == "drift--score-moved"
    parameters = request.body["runtimeConfig"]["parameterValues"]
    assert parameters["train_config"]["epochs"] == 15
    assert parameters["auto_deploy"] is False
    assert parameters["context"]["run_id"] == record.run_id
    sent = request.body["pipelineSpec"]["deploymentSpec"]["executors"]
    written = json.loads((Path(record.folder) / "pipeline.json").read_text())["deploymentSpec"]["executors"]
    assert sent["exec-train"]["container"]["image"] == written["exec-train"]["container"]["image"]
    assert sent["exec-train"]["container"]["resources"]["accelerator"]["type"] == "NVIDIA_TESLA_T4"
    assert (record.status, record.exit_code) == ("submitted", 0)
    assert "console.cloud.google.com/vertex-ai" in record.link


@pytest.mark.parametrize(
    ("change", "status", "code", "error"),
    [
        ({}, "deployed", 0, ""),
        ({"refuses": True}, "refused", 2, ""),
        ({"fails": "train"}, "failed", 1, "train: train says why"),
    ],
    ids=["deployed", "refused", "failed"],
)
def test_sync_follows_to_the_end(
    tmp_path: Path, cloud: FakeVertexPipelines, change: dict[str, Any], status: str, code: int, error: str
) -> None:
    for key, value in change.items():
        setattr(cloud, key, value)
    record = run(configuration(tmp_path, cloud), sync=True)
    assert (record.status, record.exit_code, record.error) == (status, code, error)
    assert record.stage("verify_data").seconds == 60.0
    assert next(list_runs(tmp_path / "workspace")).status == status


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "images.train=registry.example/t:latest",
            "images.train is 'registry.example/t:latest': pin it by digest",
        ),
        ("images.train=registry.example/train@sha256:" + "0" * 64, "images.train was never pushed"),
        ("machines.train.cpu=32", "1 T4 attach to at most 24 CPUs"),
        ("machines.train.accelerator=NVIDIA_TESLA_K80", "NVIDIA_TESLA_K80 is not one this project knows"),
        ("machines.train.accelerator_count=3", "3 T4s do not attach to one machine; use 1 or 2 or 4"),
        ("machines.evaluate.nodes=2", "machines.evaluate: only train runs on several machines"),
        ("machines.evaluate.spot=true", "machines.evaluate: only train runs on spot machines; leave spot out here"),
        ("train.device=cpu", "machines.train asks for a NVIDIA_TESLA_T4 and train.device is 'cpu'"),
        ("deploy.image=registry.example/s:latest", "deploy.image is 'registry.example/s:latest': pin it by digest"),
        ("machines.train.accelerator_count=0", "accelerator and accelerator_count go together"),
        ("vertex.region=europe-north1", "NVIDIA_TESLA_T4 is not offered in europe-north1"),
        ("vertex.bucket=", "set vertex.bucket"),
        ("vertex.bucket=bkt", "must start with gs://"),
        ("data.uri=data/sample", "data.uri 'data/sample' is on this disk"),
        ("evaluate.outside=/photos", "evaluate.outside '/photos' is on this disk"),
        ("tracking.uri=", "set tracking.uri to an MLflow server"),
    ],
)
def test_preflight_refuses_before_any_request(
    tmp_path: Path, cloud: FakeVertexPipelines, change: str, message: str
) -> None:
    with pytest.raises((PreflightError, CompileError)) as error:
        run(configuration(tmp_path, cloud, change))
    assert message in str(error.value)
    assert cloud.requests == []


def test_there_is_one_serving_image_and_zeros_in_its_place_are_refused(
    tmp_path: Path, cloud: FakeVertexPipelines
) -> None:
    from pipelines.compile import stage_parameters

    config = configuration(tmp_path, cloud)
    assert stage_parameters(config)["register_config"]["serving_image"] == config.images.serving
    assert stage_parameters(config)["deploy_config"]["first_image"] == config.images.serving
    places = (
        "register.vertex=true",
        "register.project=proj",
        "register.region=europe-west1",
        "register.bucket=gs://b/m",
    )
    never = "registry.example/serving@sha256:" + "0" * 64
    for key in ("images.serving", "register.serving_image"):
        with pytest.raises((PreflightError, CompileError)) as error:
            run(configuration(tmp_path, cloud, *places, f"{key}={never}"))
        assert f"{key} was never pushed" in str(error.value)
    assert cloud.requests == []


def test_an_accelerator_that_is_paid_for_is_trained_on(tmp_path: Path, cloud: FakeVertexPipelines) -> None:
    from pipelines.compile import stage_parameters
    from pipelines.preflight import problems_offline

    config = configuration(tmp_path, cloud)
    assert config.train.device == "auto"
    assert stage_parameters(open_target("vertex", config).config)["train_config"]["device"] == "cuda"
    assert stage_parameters(open_target("kubeflow", config).config)["train_config"]["device"] == "cuda"
    without = configuration(tmp_path, cloud, "machines.train.accelerator=", "machines.train.accelerator_count=0")
    assert stage_parameters(open_target("vertex", without).config)["train_config"]["device"] == "auto"
    assert stage_parameters(open_target("local", config).config)["train_config"]["device"] == "auto"
    assert problems_offline(configuration(tmp_path, cloud, "machines.train.accelerator=NVIDIA_L4")) == []


def test_several_gpus_are_trained_on_and_several_machines_are_asked_for_by_the_stage(
    tmp_path: Path, cloud: FakeVertexPipelines
) -> None:
    from pipelines.preflight import problems_offline

    nodes, kept = "machines.train.nodes=3", "train.checkpoint_dir=gs://bkt/checkpoints"
    config = configuration(tmp_path, cloud, nodes, kept, "machines.train.accelerator_count=2")
    cloud.t4s = {"": 6}
    run(config, sync=False)
    (request,) = [request for request in cloud.requests if request.method == "POST"]
    # the task follows the job of the others: it is small and has no accelerator
    resources = request.body["pipelineSpec"]["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert (resources["cpuLimit"], "accelerator" in resources) == (4.0, False)
    told = request.body["runtimeConfig"]["parameterValues"]["train_config"]
    assert told["device"] == "cuda"
    assert told["cluster"] == {
        "nodes": 3, "spot": False, "project": "proj", "region": "europe-west1", "image": config.images.train,
        "machine_type": "n1-standard-8", "accelerator": "NVIDIA_TESLA_T4", "accelerator_count": 2,
        "service_account": "pipeline@proj.iam.gserviceaccount.com", "network": "projects/1/global/networks/n",
        "labels": {"team": "trust"}, "api_endpoint": cloud.url, "request_timeout_s": config.vertex.request_timeout_s,
        "poll_s": config.vertex.poll_s,
    }  # fmt: skip
    assert PlacedTrainConfig.model_validate(told).cluster is not None  # as the stage reads it
    cloud.t4s = {"": 5}
    with pytest.raises(PreflightError, match="the run needs 6"):
        run(config, sync=False)
    one = configuration(tmp_path, cloud, "machines.train.accelerator_count=2")
    assert problems_offline(one) == []
    here = configuration(tmp_path, cloud, nodes, "train.checkpoint_dir=checkpoints", "machines.train.memory_gb=150")
    assert [problem.partition(":")[2].strip() for problem in problems_offline(here)] == [
        "3 nodes: one that goes away starts all again; set train.checkpoint_dir to a gs:// folder",
        "no machine type has 8 CPUs and 150 GB with 1 accelerators; a job on several nodes has to name one: "
        "ask for less",
    ]
    with pytest.raises(PreflightError, match=r"set kubeflow\.trainer_runtime and kubeflow\.shared_dir"):
        open_target("kubeflow", config).prepare({}, {})


def test_spot_machines_have_a_job_a_bucket_for_checkpoints_and_quotas_of_their_own(
    tmp_path: Path, cloud: FakeVertexPipelines
) -> None:
    from pipelines.preflight import problems_offline

    spot = "machines.train.spot=true"
    here = configuration(tmp_path, cloud, spot, "train.checkpoint_dir=checkpoints")
    assert problems_offline(here) == [
        "machines.train: spot machines are taken away at any time, and training would start from nothing; "
        "set train.checkpoint_dir to a gs:// folder"
    ]
    config = configuration(tmp_path, cloud, spot, "train.checkpoint_dir=gs://bkt/checkpoints")
    with pytest.raises(
        PreflightError, match=r"^quota custom_model_training_preemptible_cpus: 1 in europe-west1, the run needs 8; ask"
    ):
        run(config, sync=False)
    cloud.spot["custom_model_training_preemptible_cpus"] = {"": 96}
    cloud.t4s = {"": 0}  # of machines that stay: another quota
    run(config, sync=False)
    (request,) = [request for request in cloud.requests if request.method == "POST"]
    told = PlacedTrainConfig.model_validate(request.body["runtimeConfig"]["parameterValues"]["train_config"])
    assert isinstance(told.cluster, ClusterConfig)
    assert (told.cluster.nodes, told.cluster.spot, told.cluster.machine_type) == (1, True, "n1-standard-8")
    assert told.device == "cuda"
    cloud.spot["custom_model_training_preemptible_nvidia_t4_gpus"] = {"": 0}
    with pytest.raises(PreflightError, match="custom_model_training_preemptible_nvidia_t4_gpus: 0 in"):
        run(config, sync=False)
    with pytest.raises(PreflightError, match=r"machines\.train\.spot: spot machines are asked for on Vertex AI only"):
        open_target("kubeflow", config).prepare({}, {})


@pytest.mark.parametrize(
    ("cpu", "memory_gb", "accelerator", "count", "expected"),
    [
        (8, 30, "NVIDIA_TESLA_T4", 1, "n1-standard-8"),
        (8, 31, "NVIDIA_TESLA_T4", 4, "n1-highmem-8"),
        (17, 30, "NVIDIA_TESLA_T4", 1, ""),
        (17, 30, "NVIDIA_TESLA_T4", 2, "n1-standard-32"),
        (1, 1, "", 0, "n1-standard-4"),
        (8, 30, "NVIDIA_L4", 1, "g2-standard-8"),
        (8, 33, "NVIDIA_L4", 1, "g2-standard-12"),
        (8, 30, "NVIDIA_L4", 2, "g2-standard-24"),
        (96, 625, "", 0, ""),
    ],
)
def test_the_smallest_machine_that_fits_is_named(
    cpu: int, memory_gb: int, accelerator: str, count: int, expected: str
) -> None:
    machine = Machine.model_construct(cpu=cpu, memory_gb=memory_gb, accelerator=accelerator, accelerator_count=count)
    assert machine.machine_type == expected


def test_preflight_checks_parameters_against_the_spec(tmp_path: Path, cloud: FakeVertexPipelines) -> None:
    from pipelines.compile import compile_pipeline, stage_parameters

    config = configuration(tmp_path, cloud)
    spec = compile_pipeline(open_target("vertex", config))
    good = {**stage_parameters(config), "context": {}}
    check_cloud(config, good, spec)
    for bad, message in (
        ({**good, "trian_config": {}}, "unknown parameter 'trian_config'"),
        ({**good, "auto_deploy": "yes"}, "parameter 'auto_deploy' must be BOOLEAN, not str"),
        (stage_parameters(config), "parameter 'context' has no value"),
    ):
        with pytest.raises(PreflightError, match=message):
            check_cloud(config, bad, spec)


@pytest.mark.parametrize(("code", "message"), [(403, "403"), (404, "404"), (429, "many tries"), (503, "many tries")])
def test_faults_are_one_line_and_leave_a_failed_record(
    tmp_path: Path, cloud: FakeVertexPipelines, code: int, message: str
) -> None:
    cloud.fail("POST", "pipelineJobs", code)
    with pytest.raises(StageError, match=message) as error:
        run(configuration(tmp_path, cloud))
    assert "\n" not in str(error.value)
    assert next(list_runs(tmp_path / "workspace")).status == "failed"
    assert cloud.jobs == {}


def test_a_passing_503_is_tried_again_once_it_is_safe(tmp_path: Path, cloud: FakeVertexPipelines) -> None:
    cloud.fail("POST", "pipelineJobs", 503, times=1)
    assert run(configuration(tmp_path, cloud), sync=True).status == "deployed"
    assert len(cloud.jobs) == 1


def test_a_submission_whose_answer_is_lost_is_found_again(tmp_path: Path, cloud: FakeVertexPipelines) -> None:
    cloud.cut("POST", "pipelineJobs", carried_out=True)
    record = run(configuration(tmp_path, cloud), sync=False)
    (name,) = cloud.jobs
    assert (record.status, record.resource) == ("submitted", name)


def test_a_submission_that_never_arrived_is_one_line(tmp_path: Path, cloud: FakeVertexPipelines) -> None:
    cloud.cut("POST", "pipelineJobs", carried_out=False)
    with pytest.raises(StageError, match="check the network") as error:
        run(configuration(tmp_path, cloud), sync=False)
    assert "\n" not in str(error.value)
    assert cloud.jobs == {}
    assert next(list_runs(tmp_path / "workspace")).status == "failed"


def test_a_submission_made_behind_a_503_is_ours(tmp_path: Path, cloud: FakeVertexPipelines, monkeypatch: Any) -> None:
    create = cloud._create

    def made_but_unanswered(name: str, body: dict[str, Any]) -> dict[str, Any]:
        first = not cloud.jobs
        made = create(name, body)
        if first:
            raise cloud.busy()
        return made

    monkeypatch.setattr(cloud, "_create", made_but_unanswered)
    record = run(configuration(tmp_path, cloud), sync=False)
    assert (record.status, list(cloud.jobs)) == ("submitted", [record.resource])


def test_the_same_id_is_not_started_twice(tmp_path: Path, cloud: FakeVertexPipelines) -> None:
    config = configuration(tmp_path, cloud)
    record = run(config, sync=False)
    parameters = json.loads((Path(record.folder) / "parameters.json").read_text())
    with pytest.raises(StageError, match="is there already; nothing was started twice"):
        vertex.submit(record, config, parameters)
    assert len(cloud.jobs) == 1


def test_refresh_and_cancel(tmp_path: Path, cloud: FakeVertexPipelines) -> None:
    cloud.pace = 1000
    config = configuration(tmp_path, cloud)
    record = run(config, sync=False)
    target = open_target(record.target, config)
    target.refresh(record)
    assert record.stage("verify_data").status == "succeeded"
    assert record.status == "submitted"
    target.cancel(record)
    assert cloud.cancelled == [record.resource]


def test_every_state_before_the_first_task_is_waited_through_and_a_pause_is_told_once(
    tmp_path: Path, cloud: FakeVertexPipelines
) -> None:
    cloud.waits = ["QUEUED", "PENDING", "PAUSED", "PAUSED", "RUNNING", "UNSPECIFIED"]
    lines: list[str] = []
    order = Order("vertex", "production")
    record = launch(configuration(tmp_path, cloud), order, lambda _, line: lines.append(line))
    assert record.status == "deployed"
    assert [line for line in lines if "paused" in line] == ["note: Vertex AI has paused the run; resume it on its page"]


def test_a_run_that_somebody_else_cancels_is_interrupted(tmp_path: Path, cloud: FakeVertexPipelines) -> None:
    config = configuration(tmp_path, cloud)
    record = run(config, sync=False)
    cloud.waits = ["CANCELLING"]
    target = open_target("vertex", config)
    target.refresh(record)
    assert record.status == "submitted"
    cloud.waits = ["CANCELLED"]
    target.refresh(record)
    assert (record.status, record.error, record.exit_code) == ("interrupted", "cancelled", 1)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_look_that_google_does_not_answer_is_taken_again(
    tmp_path: Path, cloud: FakeVertexPipelines, code: int
) -> None:
    cloud.fail("GET", "/pipelineJobs/", code, times=2)
    cloud.cut("GET", "/pipelineJobs/", carried_out=True)
    assert run(configuration(tmp_path, cloud)).status == "deployed"


def test_a_run_goes_on_though_nobody_may_look_and_outlasts_an_outage(
    tmp_path: Path, cloud: FakeVertexPipelines
) -> None:
    cloud.fail("GET", "/pipelineJobs/", 403)
    with pytest.raises(StageError, match=r"403 .*; the run goes on; follow it: aidetect runs follow \S+$"):
        run(configuration(tmp_path, cloud))
    # short, because it is how long an outage is borne at a look; a busy machine answers in it
    config = configuration(tmp_path, cloud, "vertex.request_timeout_s=0.5")
    cloud.faults.clear()
    (record,) = list_runs(tmp_path / "workspace")
    assert record.is_open
    lines: list[str] = []
    cloud.fail("GET", "/pipelineJobs/", 503)

    def listen(_: RunRecord, line: str) -> None:
        lines.append(line)
        if "asked again" in line:
            cloud.faults.clear()

    follow(open_target("vertex", config), record, listen)
    assert record.status == "deployed"
    said = next(line for line in lines if "asked again" in line)
    assert said.startswith("note: ask Vertex AI about the run: still refused after many tries: 503")
    record.status = "submitted"
    cloud.fail("GET", "/pipelineJobs/", 503)
    with pytest.raises(StageError, match="the run goes on"):
        follow(open_target("vertex", config), record, lambda *_: None)
