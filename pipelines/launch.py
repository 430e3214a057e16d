"""The one way to run the pipeline: configuration, target, compiled spec, run record."""

import subprocess
from pathlib import Path

from components.artifacts.context import RunContext
from pipelines.compile import compile_pipeline, stage_parameters
from pipelines.runs import RunRecord, new_run
from pipelines.settings.names import TargetName
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.registry import open_target
from pipelines.targets.target import Listener, follow


def launch(
    config: PipelineConfig,
    on: TargetName,
    profile: str,
    listener: Listener,
    reason: str = "manual",
    sync: bool = True,
) -> RunRecord:
    """Compile and run the pipeline on a target; returns the record.

    Args:
        config: the configuration in force.
        on: where it runs.
        profile: name of the profile, for the record.
        listener: told of every change.
        reason: why the run is started.
        sync: wait for a run in the cloud to end; on this machine a run is always waited for.

    Raises:
        CompileError: the configuration does not make a valid spec for the target.
        PreflightError: the target would refuse the run or waste money on it; nothing was sent.
        StageError: the target refused it or cannot be reached.
    """
    target = open_target(on, config)
    spec = compile_pipeline(target)
    record = new_run(config.paths.workspace, on, profile, reason, git_sha())
    context = run_context(target.config, record.run_id, reason).model_dump(mode="json")
    parameters = {**stage_parameters(target.config), "context": context}
    with record.held():
        record.write_inputs(spec, parameters)
        try:
            for note in target.prepare(spec, parameters):
                listener(record, note)
            target.run(record, parameters, listener)
        except Exception as error:
            if record.status == "running":
                record.status, record.error = "failed", str(error)
                record.save()
            raise
    if sync:
        follow(target, record, listener)
    return record


def run_context(config: PipelineConfig, run_id: str, reason: str) -> RunContext:
    """What every stage is told about this run."""
    return RunContext(
        run_id=run_id,
        git_sha=git_sha(),
        tracking_uri=config.tracking_uri,
        artifact_root=config.artifact_root,
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
