"""The one way to run the pipeline: configuration, target, compiled spec, run record."""

from dataclasses import dataclass
from typing import Any, Self, cast, get_args

from components.artifacts.context import RunContext
from pipelines.cache import CACHED_SENTENCE, settled
from pipelines.compile import catalogue_parameters, compile_catalogue, compile_pipeline, stage_parameters
from pipelines.config import revision
from pipelines.resuming import taken_over
from pipelines.runs import RunRecord, new_run
from pipelines.settings.names import JOB_NAMES, CloudName, PipelineName, TargetName
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.registry import open_target
from pipelines.targets.target import Listener, Target, follow
from serving.platform.errors import PreflightError, RunError, one_line


@dataclass(frozen=True)
class Order:
    """What is asked for, beside the configuration."""

    on: TargetName
    profile: str
    overrides: tuple[str, ...] = ()
    """`--set` as given: with the profile, how the configuration is made again."""
    reason: str = "manual"
    resumes: RunRecord | None = None
    """A run whose finished stages are taken over, as far as nothing has changed since."""

    @classmethod
    def again(cls, record: RunRecord, overrides: tuple[str, ...]) -> Self:
        """The order that a run came from, to go on with it; `overrides` win over the run's own.

        Raises:
            RunError: there is nothing to go on with, or not from here.
        """
        if record.pipeline == "catalogue":
            raise RunError(
                f"run {record.run_id} scores a catalogue: the same `aidetect score` goes on where it stopped"
            )
        if record.resource:
            raise RunError(
                f"run {record.run_id} ran on {record.target}, which alone knows its stages; start it again by the "
                "command that started it" + (f" ({CACHED_SENTENCE})" if record.target == "vertex" else "")
            )
        if record.status not in ("failed", "interrupted", "lost", "refused"):
            raise RunError(f"run {record.run_id} has nothing left to do: {record.status}")
        name = cast("TargetName", record.target)
        return cls(name, record.profile, (*record.overrides, *overrides), f"resumes {record.run_id}", record)


def launch(config: PipelineConfig, order: Order, listener: Listener, sync: bool = True) -> RunRecord:
    """Compile and run the pipeline on a target; returns the record.

    Args:
        config: the configuration in force.
        order: where, why, and what it goes on with.
        listener: told of every change.
        sync: wait for a run in the cloud to end; on this machine a run is always waited for.

    Raises:
        CompileError: the configuration does not make a valid spec for the target.
        PreflightError: the target would refuse the run or waste money on it; nothing was sent.
        RunError: what it would go on with has nothing left to do.
        StageError: the target refused it or cannot be reached.
    """
    config, state, note = settled(config, order.on)
    target = open_target(order.on, config)
    spec = compile_pipeline(target)
    parameters = stage_parameters(target.config)
    stages = taken_over(order.resumes, config, parameters) if order.resumes is not None else None
    record = _record(config, order, "training")
    if stages is not None:
        record.take_over(stages)
    context = run_context(target.config, record.run_id, order.reason)
    parameters |= {"context": context.model_dump(mode="json")}
    if target.caches:
        lasting = context.lasting(f"{JOB_NAMES['training']}-").model_dump(mode="json")
        parameters |= {"data_state": state, "lasting_context": lasting}
    if note:
        listener(record, f"note: {note}")
    _carry_out(target, record, spec, parameters, listener)
    if sync:
        follow(target, record, listener)
    return record


def launch_catalogue(config: PipelineConfig, order: Order, listener: Listener, sync: bool = True) -> RunRecord:
    """Score a catalogue by the pipeline `ai-product-photo-catalogue`; source, output and model are the configuration's.

    Args:
        config: see `PipelineConfig.for_catalogue`.
        order: where and why.
        listener: told of every change.
        sync: wait for a run in the cloud to end.

    Raises:
        As `launch`.
    """
    target = open_target(order.on, config)
    check_places(target.config, order.on)
    spec = compile_catalogue(target)
    record = _record(config, order, "catalogue")
    _carry_out(target, record, spec, catalogue_parameters(target.config), listener)
    if sync:
        follow(target, record, listener)
    return record


def check_places(config: PipelineConfig, on: str) -> None:
    """What a catalogue's tasks read and write, each on a machine of its own, must be where all of them see it.

    Raises:
        PreflightError: a place on this disk for a run in the cloud, or none; each with its key.
    """
    catalogue = config.catalogue
    keys = {"source": catalogue.source, "output": catalogue.output}
    problems = [f"set catalogue.{key}" for key, place in keys.items() if not place]
    if on in get_args(CloudName):
        keys |= {"model_uri": catalogue.model_uri or "models:/"}
        for key, place in keys.items():
            if place and not place.startswith(("gs://", "models:/")):
                scheme, remote, _ = place.partition("://")
                why = f"no stage reads {scheme}://" if remote else "is on this disk"
                problems.append(f"catalogue.{key} {place!r} {why}: a run on {on} needs gs://")
    if problems:
        raise PreflightError("; ".join(problems))


def _record(config: PipelineConfig, order: Order, pipeline: PipelineName) -> RunRecord:
    record = new_run(config.paths.workspace, order.on, order.profile, order.reason, revision(), pipeline)
    record.overrides = list(order.overrides)
    return record


def _carry_out(
    target: Target,
    record: RunRecord,
    spec: dict[str, Any],
    parameters: dict[str, Any],
    listener: Listener,
) -> None:
    """Run the spec, or submit it; the record says how that ended, whatever happens."""
    with record.held():
        record.write_inputs(spec, parameters)
        try:
            for note in target.prepare(spec, parameters):
                listener(record, note)
            target.run(record, parameters, listener)
        except BaseException as error:
            if record.status == "running":
                stopped = isinstance(error, (KeyboardInterrupt, BrokenPipeError))
                record.status, record.error = ("interrupted", "interrupted") if stopped else ("failed", one_line(error))
                record.save()
            raise


def run_context(config: PipelineConfig, run_id: str, reason: str) -> RunContext:
    """What every stage is told about this run."""
    return RunContext(
        run_id=run_id,
        git_sha=revision(),
        tracking_uri=config.tracking_uri,
        artifact_root=config.artifact_root,
        experiment=config.tracking.experiment,
        model_name=config.tracking.model_name,
        reason=reason,
    )
