"""DAG, images and machines to the pipeline spec that runners take, checked against KFP's own protos."""

import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

from pipelines.settings.names import STAGES
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.target import Target
from serving.platform.errors import CompileError


def compile_pipeline(target: Target) -> dict[str, Any]:
    """Compile the DAG for a target to a pipeline spec, with its configuration as the parameters' defaults.

    Raises:
        CompileError: an image that the target must not be given, a limit on what nothing measures, or a spec that
            KFP's protos do not accept.
    """
    from pipelines.training import build_pipeline

    if target.config.gate.max_confident_errors_outside is not None and not target.config.evaluate.outside:
        raise CompileError(
            "nothing measures gate.max_confident_errors_outside: set evaluate.outside to a labelled folder"
        )
    spec = _compile(build_pipeline(target.place, target.caches), stage_parameters(target.config))
    missing = [
        stage for stage in STAGES if f"exec-{stage.replace('_', '-')}" not in spec["deploymentSpec"]["executors"]
    ]
    if missing:
        raise CompileError(f"the compiled spec has no executor for {', '.join(missing)}")
    return spec


def compile_catalogue(target: Target, recurring: bool = False) -> dict[str, Any]:
    """Compile the DAG that scores a catalogue; its tasks run where the light stages do.

    Args:
        target: with source, output and model in its configuration (`catalogue`).
        recurring: every run gets a folder of its own.

    Raises:
        CompileError: an image that the target must not be given, or a spec that KFP's protos do not accept.
    """
    from pipelines.catalogue import build_catalogue

    config = target.config

    def place(task: Any) -> None:
        target.place("verify_data", task)
        # a catalogue's parts lie where its owner may remove them: what is there is asked, never remembered
        task.set_caching_options(False)

    return _compile(build_catalogue(place, config.catalogue.parallel_tasks, recurring), catalogue_parameters(config))


def _compile(pipeline: Any, parameters: dict[str, Any]) -> dict[str, Any]:
    from kfp import compiler

    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        # kfp warns of every image whose name does not contain the word "python"
        warnings.filterwarnings("ignore", message=".*base image.*")
        # Vertex AI's client reads JSON, and only JSON is refused when a feature of another platform slips in
        warnings.filterwarnings("ignore", message="Compiling to JSON is deprecated")
        path = Path(folder) / "pipeline.json"
        compiler.Compiler().compile(pipeline, str(path), pipeline_parameters=parameters)
        spec: dict[str, Any] = json.loads(path.read_text())
    check_spec(spec)
    return spec


def stage_parameters(config: PipelineConfig) -> dict[str, Any]:
    """Pipeline parameters that the configuration decides (all but `context`)."""
    config = config.with_serving_image()
    return {
        "data_uri": config.data.uri,
        "data_labels": config.data.labels,
        "verify_data_config": config.verify_data.model_dump(mode="json", exclude_none=True),
        "train_config": config.train.model_dump(mode="json", exclude_none=True),
        "evaluate_config": config.evaluate.model_dump(mode="json", exclude_none=True),
        "gate_config": config.gate.model_dump(mode="json", exclude_none=True),
        "register_config": config.register_.model_dump(mode="json", exclude_none=True),
        "deploy_config": config.deploy.model_dump(mode="json", exclude={"auto"}, exclude_none=True),
        "auto_deploy": config.deploy.auto,
    }


def catalogue_parameters(config: PipelineConfig) -> dict[str, Any]:
    """Parameters of the pipeline that scores a catalogue."""
    catalogue = config.catalogue
    return {
        "source": catalogue.source,
        "destination": catalogue.output,
        "model_uri": catalogue.model_uri or f"models:/{config.tracking.model_name}@champion",
        "tracking_uri": config.tracking_uri,
        "config": catalogue.model_dump(mode="json", exclude={"source", "output", "model_uri"}),
    }


def check_spec(spec: dict[str, Any]) -> None:
    """Parse the spec and each executor strictly; a misspelt field would otherwise be dropped in silence.

    Raises:
        CompileError: a field the protos do not know.
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
