"""The compiled spec: what Vertex AI would be given, held against a golden picture of the DAG and KFP's own protos."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2 as pb

from pipelines.compile import check_spec, compile_pipeline
from pipelines.config import load_config
from pipelines.settings.names import STAGES
from pipelines.targets.registry import open_target
from serving.platform.errors import CompileError
from tests.e2e.conftest import Cli

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden_dag.json")
DIGEST = "@sha256:" + "a1" * 32
PINNED = [f"images.{name}=registry.example/{name}{DIGEST}" for name in ("train", "pipeline", "serving")]


@pytest.fixture(scope="module")
def vertex() -> dict[str, Any]:
    return compile_pipeline(open_target("vertex", load_config("production", PINNED, ROOT / "pipeline_config.yaml", {})))


def executors(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name.removeprefix("exec-").replace("-", "_"): executor["container"]
        for name, executor in spec["deploymentSpec"]["executors"].items()
    }


def shape(spec: dict[str, Any]) -> dict[str, Any]:
    """The DAG without what changes with code or configuration: sources, defaults, SDK version."""

    def tasks(dag: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {
                "after": sorted(task.get("dependentTasks", [])),
                "if": task.get("triggerPolicy", {}).get("condition", ""),
                "inputs": sorted(
                    [
                        *task.get("inputs", {}).get("artifacts", {}),
                        *task.get("inputs", {}).get("parameters", {}),
                    ]
                ),
                "cached": task.get("cachingOptions", {}).get("enableCache", False),
            }
            for name, task in dag["tasks"].items()
        }

    picture = {"root": tasks(spec["root"]["dag"])}
    for name, component in spec["components"].items():
        if "dag" in component:
            picture[name] = tasks(component["dag"])
    machines = {
        name: {"image": container["image"], **container.get("resources", {})}
        for name, container in executors(spec).items()
    }
    return {"dags": picture, "machines": machines, "parameters": spec["root"]["inputDefinitions"]["parameters"].keys()}


def test_the_dag_is_the_golden_one(vertex: dict[str, Any]) -> None:
    found = json.loads(json.dumps(shape(vertex), default=sorted))
    assert found == json.loads(GOLDEN.read_text()), (
        "the DAG changed; if that was meant, write it anew: "
        "python -c 'from tests.pipelines.test_compile import renew; renew()'"
    )


def renew() -> None:
    """Write the golden picture anew, after a meant change of the DAG."""
    spec = compile_pipeline(open_target("vertex", load_config("production", PINNED, ROOT / "pipeline_config.yaml", {})))
    GOLDEN.write_text(json.dumps(shape(spec), default=sorted, indent=1, sort_keys=True) + "\n")


def test_six_executors_with_one_pinned_image_each_and_the_t4_on_train_alone(vertex: dict[str, Any]) -> None:
    found = executors(vertex)
    assert set(found) == set(STAGES)
    assert all(container["image"].endswith(DIGEST) for container in found.values())
    with_accelerator = {name for name, c in found.items() if "accelerator" in c.get("resources", {})}
    assert with_accelerator == {"train"}
    resources = found["train"]["resources"]
    assert resources["accelerator"]["type"] == "NVIDIA_TESLA_T4"
    assert int(resources["accelerator"]["count"]) == 1
    assert (resources["cpuLimit"], resources["memoryLimit"]) == (8.0, 30.0)
    # the gate answers with one bare bool: any other name makes KFP's local runner take the false branch in silence
    outputs = vertex["components"]["comp-quality-gate"]["outputDefinitions"]["parameters"]
    assert outputs == {"Output": {"parameterType": "BOOLEAN"}}


def test_protos_accept_the_spec_and_refuse_a_misspelt_executor_field(vertex: dict[str, Any]) -> None:
    json_format.ParseDict(vertex, pb.PipelineSpec())
    for executor in vertex["deploymentSpec"]["executors"].values():
        json_format.ParseDict(executor, pb.PipelineDeploymentConfig.ExecutorSpec())
    broken = copy.deepcopy(vertex)
    broken["deploymentSpec"]["executors"]["exec-train"]["container"]["imagee"] = "x"
    with pytest.raises(CompileError, match="imagee"):
        check_spec(broken)


def test_compilation_is_deterministic(vertex: dict[str, Any]) -> None:
    config = load_config("production", PINNED, ROOT / "pipeline_config.yaml", {})
    assert compile_pipeline(open_target("vertex", config)) == vertex


def test_a_movable_tag_is_refused_for_vertex() -> None:
    config = load_config("production", [*PINNED, "images.train=registry.example/train:latest"], environ={})
    with pytest.raises(CompileError, match=r"images\.train is 'registry\.example/train:latest': pin it by digest"):
        compile_pipeline(open_target("vertex", config))


def test_kubeflow_names_its_accelerator_and_local_has_none() -> None:
    config = load_config("production", PINNED, ROOT / "pipeline_config.yaml", {})
    kubeflow = executors(compile_pipeline(open_target("kubeflow", config)))["train"]["resources"]["accelerator"]
    assert kubeflow["type"] == "nvidia.com/gpu"
    local = executors(compile_pipeline(open_target("local", config)))
    assert all("resources" not in container for container in local.values())


def test_the_command_line_writes_the_spec(tmp_path: Path) -> None:
    output = tmp_path / "pipeline.json"
    done = Cli(tmp_path)("compile", "--target", "vertex", "-o", str(output))
    assert done.returncode == 0, done.stderr
    assert set(executors(json.loads(output.read_text()))) == set(STAGES)
    assert "never pushed" in done.stderr
