"""DAG, images and machines to the pipeline spec that runners take, checked against KFP's own protos."""

import json
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pipelines.config import PipelineConfig
from pipelines.places import STAGES, Stage, is_pinned
from serving.platform.errors import CompileError

if TYPE_CHECKING:
    from kfp import dsl

TargetName = Literal["local", "docker", "vertex", "kubeflow"]
PIPELINE_FILE: Final = "pipeline.json"
PARAMETERS_FILE: Final = "parameters.json"
TARGETS: Final[tuple[TargetName, ...]] = ("local", "docker", "vertex", "kubeflow")


def compile_pipeline(config: PipelineConfig, target: TargetName) -> dict[str, Any]:
    """Compile the DAG for one target to a pipeline spec, with this configuration as its parameters' defaults.

    Raises:
        CompileError: a movable image tag for Vertex AI, or a spec that KFP's protos do not accept.
    """
    if target == "vertex":
        refuse_movable_tags(config)
    from kfp import compiler

    with warnings.catch_warnings():
        # kfp warns of every image whose name does not contain the word "python"
        warnings.filterwarnings("ignore", message=".*base image.*")
        # Vertex AI's client reads JSON, and only JSON is refused when a feature of another platform slips in
        warnings.filterwarnings("ignore", message="Compiling to JSON is deprecated")
        from pipelines.training import Placement, build_pipeline

        pipeline = build_pipeline(Placement(lambda stage, task: _place(config, target, stage, task)))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pipeline.json"
            compiler.Compiler().compile(pipeline, str(path), pipeline_parameters=stage_parameters(config))
            spec: dict[str, Any] = json.loads(path.read_text())
    check_spec(spec)
    return spec


def stage_parameters(config: PipelineConfig) -> dict[str, Any]:
    """Pipeline parameters that the configuration decides (all but `context`)."""
    return {
        "data_uri": config.data.uri,
        "verify_data_config": config.verify_data.model_dump(mode="json", exclude_none=True),
        "train_config": config.train.model_dump(mode="json", exclude_none=True),
        "evaluate_config": config.evaluate.model_dump(mode="json", exclude_none=True),
        "gate_config": config.gate.model_dump(mode="json", exclude_none=True),
        "register_config": config.register_.model_dump(mode="json", exclude_none=True),
        "deploy_config": config.deploy.model_dump(mode="json", exclude={"auto"}, exclude_none=True),
        "auto_deploy": config.deploy.auto,
    }


def refuse_movable_tags(config: PipelineConfig) -> None:
    """Vertex AI caches by image name: a movable tag would answer with results of older code.

    Raises:
        CompileError: names the image and the fix.
    """
    for name, image in config.images.model_dump().items():
        if not is_pinned(image):
            raise CompileError(
                f"images.{name} is {image!r}: pin it by digest (…@sha256:<64 hex>), a tag may move under a cached run"
            )


def check_spec(spec: dict[str, Any]) -> None:
    """Parse the spec and each executor strictly; a misspelt field would otherwise be dropped in silence.

    Raises:
        CompileError: a field the protos do not know, or a stage without its own executor.
    """
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2 as pb

    executors = spec["deploymentSpec"]["executors"]
    try:
        json_format.ParseDict(spec, pb.PipelineSpec())
        for executor in executors.values():
            json_format.ParseDict(executor, pb.PipelineDeploymentConfig.ExecutorSpec())
    except json_format.ParseError as error:
        raise CompileError(f"the compiled spec is not a valid pipeline: {error}") from error
    missing = [stage for stage in STAGES if f"exec-{stage.replace('_', '-')}" not in executors]
    if missing:
        raise CompileError(f"the compiled spec has no executor for {', '.join(missing)}")


def _place(config: PipelineConfig, target: TargetName, stage: Stage, task: "dsl.PipelineTask") -> None:
    whole = target == "docker" and stage == "deploy" and config.deploy.target == "local"
    task.set_container_image(config.docker.deploy_image if whole else config.images.of(stage))
    # stale results after a code change are worse than a repeated stage: opt in by vertex.caching
    task.set_caching_options(target == "vertex" and config.vertex.caching)
    if target in ("local", "docker"):
        return
    machine = config.machines.of(stage)
    task.set_cpu_limit(str(machine.cpu)).set_memory_limit(f"{machine.memory_gb}G")
    if machine.accelerator_count:
        name = machine.accelerator if target == "vertex" else config.kubeflow.accelerator
        task.set_accelerator_type(name).set_accelerator_limit(machine.accelerator_count)
