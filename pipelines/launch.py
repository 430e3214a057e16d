"""The one way to run the pipeline: configuration, compiled spec, run record, target."""

import json
import logging
import subprocess
from pathlib import Path
from typing import Any

from components.artifacts.context import RunContext
from components.platform.signals import sigterm_raises
from pipelines.compile import PARAMETERS_FILE, PIPELINE_FILE, TargetName, compile_pipeline, stage_parameters
from pipelines.config import PipelineConfig
from pipelines.preflight import ask_cloud, check_cloud
from pipelines.runs import RunRecord, new_run
from pipelines.targets.local import Listener, run_spec
from serving.platform.errors import PreflightError, StageError

_log = logging.getLogger(__name__)


def launch(
    config: PipelineConfig,
    target: TargetName,
    profile: str,
    listener: Listener,
    reason: str = "manual",
    sync: bool = True,
) -> RunRecord:
    """Compile and run the pipeline on a target; returns the record.

    Args:
        config: the configuration in force.
        target: where it runs.
        profile: name of the profile, for the record.
        listener: told of every change.
        reason: why the run is started.
        sync: wait for a run in the cloud to end; on this machine a run is always waited for.

    Raises:
        CompileError: the configuration does not make a valid spec for the target.
        PreflightError: the cloud would refuse the run or waste money on it; nothing was sent.
        StageError: the target refused it or cannot be reached.
    """
    if target == "docker":
        from pipelines.targets import docker

        config = on_this_disk(config)
        for warning in docker.check_engine(compile_pipeline(config, target), git_sha()):
            _log.warning("%s; `make images` builds them anew", warning)
        with sigterm_raises(), docker.registry_server(config) as served:
            return _launch(served, target, profile, listener, reason, sync)
    return _launch(on_this_disk(config) if target == "local" else config, target, profile, listener, reason, sync)


def _launch(
    config: PipelineConfig, target: TargetName, profile: str, listener: Listener, reason: str, sync: bool
) -> RunRecord:
    spec = compile_pipeline(config, target)
    record = new_run(config.paths.workspace, target, profile, reason, git_sha())
    parameters = {
        **stage_parameters(config),
        "context": run_context(config, record.run_id, reason).model_dump(mode="json"),
    }
    write_inputs(record, spec, parameters)
    try:
        if target == "vertex":
            return _on_vertex(record, config, spec, parameters, listener, sync)
        if target == "kubeflow":
            from pipelines.targets import kubeflow

            return kubeflow.run(record, config, parameters, listener, sync)
    except (PreflightError, StageError) as error:
        record.status, record.error = "failed", str(error)
        record.save()
        raise
    if target == "docker":
        from pipelines.targets import docker

        docker.write_options(Path(record.folder), config)
    return run_spec(record, listener, "docker" if target == "docker" else "subprocess")


def _on_vertex(
    record: RunRecord,
    config: PipelineConfig,
    spec: dict[str, Any],
    parameters: dict[str, Any],
    listener: Listener,
    sync: bool,
) -> RunRecord:
    from pipelines.targets import vertex

    check_cloud(config, parameters, spec)
    for note in ask_cloud(config):
        listener(record, note)
    vertex.submit(record, config, parameters)
    listener(record, f"submitted: {record.link}")
    return vertex.follow(record, config, listener) if sync else record


def write_inputs(record: RunRecord, spec: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Keep what a run is started with in its folder: the very file that is run or submitted."""
    folder = Path(record.folder)
    (folder / PIPELINE_FILE).write_text(json.dumps(spec, indent=1))
    (folder / PARAMETERS_FILE).write_text(json.dumps(parameters, indent=1))


def on_this_disk(config: PipelineConfig) -> PipelineConfig:
    """The configuration with relative paths made absolute: data against this folder, records against the workspace."""
    workspace = config.paths.workspace.resolve()
    uri = config.data.uri
    checkpoints, ledger = config.train.checkpoint_dir, config.deploy.ledger_path
    weights = config.train.weights_uri
    return config.model_copy(
        update={
            "data": config.data.model_copy(update={"uri": uri if "://" in uri else str(Path(uri).resolve())}),
            "train": config.train.model_copy(
                update={
                    "checkpoint_dir": str(workspace / checkpoints) if checkpoints else "",
                    "weights_uri": str(Path(weights).resolve()) if weights and "://" not in weights else weights,
                }
            ),
            "deploy": config.deploy.model_copy(
                update={"ledger_path": ledger if "://" in ledger else str(workspace / ledger)}
            ),
        }
    )


def run_context(config: PipelineConfig, run_id: str, reason: str) -> RunContext:
    """What every stage is told about this run."""
    sqlite = config.tracking_uri.startswith("sqlite:")
    return RunContext(
        run_id=run_id,
        git_sha=git_sha(),
        tracking_uri=config.tracking_uri,
        artifact_root=(config.paths.workspace.resolve() / "mlflow-artifacts").as_uri() if sqlite else "",
        experiment=config.tracking.experiment,
        model_name=config.tracking.model_name,
        reason=reason,
    )


def git_sha() -> str:
    """Commit of the code that runs, with `-dirty` when the tree was changed; `unknown` outside a checkout."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
