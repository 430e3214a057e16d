"""`--on docker`: the compiled spec in containers gives what it gives in processes, and a failure is never lost."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from kfp import compiler, dsl

from components.artifacts.evaluation import PREDICTIONS_PARQUET
from components.evaluate.component import evaluate
from components.platform.registry import Registry
from pipelines.config import load_config
from pipelines.runs import PARAMETERS_FILE
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.docker import CONTAINERS_FILE, write_options
from pipelines.targets.kfp_process import STOP_S
from serving.app import create_app
from serving.settings import Settings
from tests.e2e.conftest import SMALL
from tests.rehearsal.images import BUILT, ROOT
from tests.rehearsal.killed_catalogue import DAMAGED, GROUP, HELD, PHOTOS, KilledCatalogue
from tests.rehearsal.test_rehearsal import tell

MODEL = "ai-product-photo-detector"
SETTINGS = {**SMALL, "train.batch_size": "32", "gate.min_accuracy": "0", "gate.min_f1": "0"}


def aidetect(workspace: Path, *arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    settings = {**SETTINGS, "paths.workspace": str(workspace), **changes}
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    return subprocess.run(
        [sys.executable, "-c", "from pipelines.cli import main; main()", *arguments, *sets],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )


def run(workspace: Path, on: str, **changes: str) -> dict[str, Any]:
    done = aidetect(workspace, "run", "--on", on, "--json", **changes)
    assert done.stdout, done.stderr
    record: dict[str, Any] = json.loads(done.stdout)
    tell(f"aidetect run --on {on}: {record['status']} in {record['seconds']:.0f} s. {record['headline']}")
    assert (done.returncode, record["status"]) == (0, "deployed"), (record, done.stderr)
    return record


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def in_processes(workspace: Path) -> dict[str, Any]:
    return run(workspace, "local")


def configured(workspace: Path) -> PipelineConfig:
    return load_config("sample", [f"paths.workspace={workspace}"], ROOT / "pipeline_config.yaml", {}).on_this_disk()


def artifact(record: dict[str, Any], stage: str, name: str) -> Path:
    return next(Path(entry["output_dir"]) for entry in record["stages"] if entry["name"] == stage) / name


def left_behind(engine: Any, workspace: Path) -> list[str]:
    """Containers of this workspace's runs; those of other rehearsals that go on meanwhile are not meant."""
    found = engine.containers.list(all=True, sparse=True)
    return [one.id for one in found if str(workspace) in {mount["Source"] for mount in one.attrs["Mounts"]}]


def test_the_whole_spec_runs_in_containers_on_the_same_registry(
    workspace: Path, in_processes: dict[str, Any], engine: Any
) -> None:
    in_containers = run(workspace, "docker", **{"train.label_smoothing": "0.01", "evaluate.champion_uri": ""})
    names = [(Path(in_processes["folder"]) / "pipeline.json"), (Path(in_containers["folder"]) / "pipeline.json")]
    specs = [json.loads(path.read_text()) for path in names]
    for spec in specs:
        spec["deploymentSpec"]["executors"]["exec-deploy"]["container"].pop("image")
        del spec["root"]["inputDefinitions"]
    assert specs[0] == specs[1], "another spec than the one that runs in processes"
    registry = Registry(f"sqlite:///{workspace / 'mlflow.db'}", MODEL)
    assert (registry.aliased("champion"), len(registry.summaries())) == ("2", 2)
    assert left_behind(engine, workspace) == []
    # what a run in containers registered is served without them
    again = aidetect(workspace, "promote", "2", "--why", "from this machine")
    assert again.returncode == 0, again.stderr


@dsl.pipeline(name="scores")
def scores(bundle_uri: str, dataset_uri: str, config: dict, context: dict) -> None:
    bundle = dsl.importer(artifact_uri=bundle_uri, artifact_class=dsl.Model)
    dataset = dsl.importer(artifact_uri=dataset_uri, artifact_class=dsl.Dataset)
    task = evaluate(bundle=bundle.output, dataset=dataset.output, config=config, context=context, job="scores")
    task.set_container_image(f"{BUILT}/train:dev").set_caching_options(False)


def scored(folder: Path, config: PipelineConfig, parameters: dict[str, Any]) -> Path:
    """The verdicts of a container in which the bundle is evaluated."""
    folder.mkdir()
    compiler.Compiler().compile(scores, str(folder / "spec.yaml"))
    (folder / "parameters.json").write_text(json.dumps(parameters))
    write_options(folder, config)
    process = [sys.executable, "-m", "pipelines.targets.kfp_process", "--runner", "docker"]
    files = ["--spec", "spec.yaml", "--parameters", "parameters.json", "--containers", CONTAINERS_FILE]
    done = subprocess.run(
        [*process, *files, "--root", str(folder / "artifacts")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    (found,) = (folder / "artifacts").glob(f"*/evaluate/evaluation/{PREDICTIONS_PARQUET}")
    return found


def verdicts(path: Path) -> dict[tuple[str, int, str], float]:
    """P(ai_generated) of every image; the corruptions stand in no certain order."""
    rows = pq.read_table(path, columns=["split", "row", "pixel_sha256", "probability"]).to_pylist()
    return {(row["split"], row["row"], row["pixel_sha256"]): row["probability"] for row in rows}


def test_one_bundle_scores_alike_in_a_process_and_in_a_container(workspace: Path, in_processes: dict[str, Any]) -> None:
    config = configured(workspace)
    told = json.loads((Path(in_processes["folder"]) / PARAMETERS_FILE).read_text())
    parameters = {
        "bundle_uri": str(artifact(in_processes, "train", "bundle")),
        "dataset_uri": str(artifact(in_processes, "verify_data", "dataset")),
        # when it judged there was no champion
        "config": {**told["evaluate_config"], "champion_uri": ""},
        "context": {"run_id": "scores"},
    }
    # the run's own stage was a process, and judged the same bundle and images
    said = artifact(in_processes, "evaluate", "evaluation") / PREDICTIONS_PARQUET
    here, there = (verdicts(path) for path in (said, scored(workspace / "scores", config, parameters)))
    assert here.keys() == there.keys()
    probabilities = np.asarray([[here[image], there[image]] for image in here])
    gap = float(np.abs(probabilities[:, 0] - probabilities[:, 1]).max())
    tell(f"{len(there)} probabilities in a process and in a container: largest difference {gap:.1e}")
    assert len(there) > 100
    assert probabilities.std() > 0
    assert gap <= 1e-5


@pytest.fixture(scope="module")
def catalogue(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledCatalogue]:
    """A catalogue one of whose containers was killed: half a minute later it is begun again, and other tests go on."""
    job = KilledCatalogue(engine, tmp_path_factory.mktemp("catalogue"))
    yield job
    job.close()


@pytest.mark.usefixtures("catalogue")
def test_a_container_that_ends_at_once_with_1_is_a_failure(tmp_path: Path, workspace: Path, engine: Any) -> None:
    spec = tmp_path / "spec.yaml"
    write_options(tmp_path, configured(workspace))

    @dsl.container_component
    def ends(code: int) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image=f"{BUILT}/train:dev", command=["sh", "-c", 'exit "$0"'], args=[code])

    @dsl.pipeline(name="ends")
    def pipeline(code: int) -> None:
        ends(code=code)

    compiler.Compiler().compile(pipeline, str(spec))
    for code in [1, 0, 3]:
        (tmp_path / "parameters.json").write_text(json.dumps({"code": code}))
        process = [sys.executable, "-m", "pipelines.targets.kfp_process", "--runner", "docker", "--spec", str(spec)]
        files = ["--parameters", str(tmp_path / "parameters.json"), "--containers", str(tmp_path / CONTAINERS_FILE)]
        done = subprocess.run([*process, *files, "--root", str(tmp_path / "artifacts")], cwd=ROOT, capture_output=True)
        assert done.returncode == (1 if code else 0), done.stdout.decode()
    assert left_behind(engine, workspace) == []


def test_an_interrupt_ends_the_container_too(workspace: Path, engine: Any) -> None:
    settings = {**SETTINGS, "train.epochs": "500", "train.early_stopping_patience": "0"}
    settings["paths.workspace"] = str(workspace)
    before = set(workspace.glob("runs/*"))
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    process = subprocess.Popen(
        [sys.executable, "-c", "from pipelines.cli import main; main()", "run", "--on", "docker", "--json", *sets],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    log = None
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        log = next((path / "run.log" for path in {*workspace.glob("runs/*")} - before), None)
        if log is not None and log.is_file() and "epoch " in log.read_text():
            break
        time.sleep(0.2)
    assert process.poll() is None and log is not None, "the training never began"
    assert left_behind(engine, workspace) != []
    told = time.monotonic()
    process.send_signal(signal.SIGTERM)
    while left_behind(engine, workspace) and time.monotonic() - told < 60:
        time.sleep(0.1)
    # before its time is up, when it would be killed; the run itself goes on until its registry server has ended, too
    assert time.monotonic() - told < STOP_S, "the stage did not hear the signal"
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, json.loads(output)["status"]) == (1, "interrupted")
    assert left_behind(engine, workspace) == []
    assert list(log.parent.rglob("manifest.json")) == []


@pytest.mark.parametrize(
    ("changes", "environment", "sentence"),
    [
        (
            {"images.train": f"{BUILT}/train:never-built"},
            {},
            "is not here and cannot be pulled; build it with `make images`",
        ),
        ({}, {"DOCKER_HOST": "unix:///nowhere.sock"}, "no Docker Engine answers; start it or set DOCKER_HOST"),
        ({"data.uri": "nowhere"}, {}, "verify_data: "),
    ],
    ids=["no image", "no engine", "no data"],
)
def test_what_is_missing_is_said_in_one_line(
    workspace: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    done = aidetect(workspace, "run", "--on", "docker", **changes)
    assert done.returncode == 1
    said = [line for line in (done.stdout + done.stderr).splitlines() if sentence in line]
    assert said, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_catalogue_whose_container_was_killed_loses_and_doubles_no_row(catalogue: KilledCatalogue) -> None:
    summary = catalogue.finish()
    assert {name: catalogue.parts()[name] for name in catalogue.kept} == catalogue.kept, "a part was written again"
    files = sorted((catalogue.output / "parts").iterdir())
    assert [file.name for file in files] == [f"part-{number:06d}.parquet" for number in range(PHOTOS)]
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert [row["id"] for row in rows] == [str(number) for number in range(PHOTOS)]
    assert [row["id"] for row in rows if row["refused_reason"]] == [str(DAMAGED)]
    assert (summary["photos"], summary["refused"], summary["worker_died"]) == (PHOTOS, 1, 0)
    # repeated work is what was under way: the photo that was kept back, and the shards behind it that waited
    fetched = catalogue.fetched()
    again = [number for number, times in enumerate(fetched) if times > 1]
    assert min(fetched) == 1
    assert again[:1] == [HELD]
    assert len(again) <= 2
    tell(f"a container killed after {len(catalogue.kept)} of {PHOTOS} shards: fetched again {again}, {len(rows)} rows")
    settings = Settings(model_uri=str(catalogue.bundle), rate_limit_enabled=False, log_level="warning")
    with TestClient(create_app(settings)) as client:
        for number in {*range(0, PHOTOS, 9), HELD, GROUP} - {DAMAGED}:
            answer = client.post("/predict", files={"file": catalogue.photos[number]}).json()
            assert answer["probability"] == pytest.approx(rows[number]["probability"], abs=1e-6)
            assert answer["decision"] == rows[number]["decision"]
