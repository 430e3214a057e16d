"""When the pipeline runs by itself: the cloud's schedules brought to what the configuration says, and no further."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipelines.cache import without_cache
from pipelines.compile import catalogue_parameters, compile_catalogue, compile_pipeline, stage_parameters
from pipelines.config import revision
from pipelines.launch import check_places, run_context
from pipelines.settings.names import PipelineName
from pipelines.settings.pipeline import PipelineConfig
from pipelines.targets.registry import open_target
from pipelines.targets.scheduler import Standing, Wanted
from pipelines.targets.target import Target

Verb = Literal["create", "update", "resume", "pause", "delete"]


@dataclass(frozen=True)
class Step:
    """One change, and why."""

    verb: Verb
    why: str
    resource: str = ""
    """Of the schedule that is changed; empty: a new one."""


@dataclass(frozen=True)
class Report:
    """The schedules of one name: as found, what was to change, as they are."""

    name: str
    target: str
    steps: tuple[Step, ...]
    standing: tuple[Standing, ...]
    """After the steps; in a plan, before them."""
    notes: tuple[str, ...] = ()
    """What could not be checked before a change, and what one run may cost."""

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def plan(config: PipelineConfig, pipeline: PipelineName = "training") -> Report:
    """What `apply` would change; nothing is changed.

    Raises:
        PreflightError, CompileError, ScheduleError: the runs it would start are refused; nothing was sent.
        StageError: the target refused or cannot be reached.
    """
    config = _of(config, pipeline)
    target = _target(config)
    wanted, scheduler = _wanted(target, pipeline), target.scheduler()
    standing = scheduler.find()
    return _report(config, decide(wanted, scheduler.written(wanted), standing, config.schedule.enabled), standing)


def apply(config: PipelineConfig, pipeline: PipelineName = "training") -> Report:
    """Bring the target's schedules to what the configuration says; a second call changes nothing.

    Raises:
        As `plan`, and PreflightError for what only the cloud can tell; what was changed before a refusal stays, and
            the next call goes on from there.
    """
    config = _of(config, pipeline)
    target = _target(config)
    wanted, scheduler = _wanted(target, pipeline), target.scheduler()
    steps = decide(wanted, scheduler.written(wanted), scheduler.find(), config.schedule.enabled)
    notes: list[str] = []
    if any(step.verb in ("create", "update") for step in steps):
        notes = target.prepare(wanted.spec, wanted.parameters)
    for step in steps:
        if step.verb == "create":
            scheduler.create(wanted)
        elif step.verb == "update":
            scheduler.update(step.resource, wanted)
        else:
            getattr(scheduler, step.verb)(step.resource)
    return _report(config, steps, scheduler.find(), notes)


def pause(config: PipelineConfig, pipeline: PipelineName = "training") -> Report:
    """Pause what stands under the configured name, until the next `apply`.

    Raises:
        StageError: the target refused or cannot be reached.
    """
    config = _of(config, pipeline)
    scheduler = _target(config).scheduler()
    steps = [Step("pause", "asked for", found.resource) for found in scheduler.find() if found.state == "active"]
    for step in steps:
        scheduler.pause(step.resource)
    return _report(config, steps, scheduler.find())


def delete(config: PipelineConfig, pipeline: PipelineName = "training") -> Report:
    """Remove every schedule of the configured name.

    Raises:
        StageError: the target refused or cannot be reached.
    """
    config = _of(config, pipeline)
    scheduler = _target(config).scheduler()
    steps = [Step("delete", "asked for", found.resource) for found in scheduler.find()]
    for step in steps:
        scheduler.delete(step.resource)
    return _report(config, steps, scheduler.find())


def decide(wanted: Wanted, cron: str, standing: list[Standing], enabled: bool) -> list[Step]:
    """The steps from what stands to what is wanted; pure.

    Args:
        wanted: by the configuration.
        cron: as the target writes it.
        standing: all schedules of the name.
        enabled: whether runs are to be started at all.
    """
    if not enabled:
        why = "schedule.enabled is false"
        return [Step("pause", why, found.resource) for found in standing if found.state == "active"]
    usable = sorted(
        (s for s in standing if s.state != "completed"), key=lambda s: (s.digest == wanted.digest, s.created_at)
    )
    if not usable:
        return [Step("create", "there is none"), *_removals(standing, "it has ended")]
    kept = usable[-1]
    steps = []
    if changes := _changes(wanted, cron, kept):
        steps.append(Step("update", "; ".join(changes), kept.resource))
    if kept.state == "paused":
        steps.append(Step("resume", "it is paused", kept.resource))
    # after the one that stays is as it should be: no moment without a schedule
    return [*steps, *_removals([s for s in standing if s is not kept], f"{kept.resource} has the same name")]


def _removals(schedules: list[Standing], why: str) -> list[Step]:
    return [Step("delete", why, found.resource) for found in schedules]


def _changes(wanted: Wanted, cron: str, found: Standing) -> list[str]:
    changes = []
    if found.cron != cron:
        changes.append(f"cron {found.cron!r} becomes {cron!r}")
    if found.max_concurrent_runs != wanted.max_concurrent_runs:
        changes.append(f"concurrent runs {found.max_concurrent_runs} become {wanted.max_concurrent_runs}")
    if found.digest != wanted.digest:
        changes.append("the pipeline, its images or its parameters changed")
    return changes


def _target(config: PipelineConfig) -> Target:
    # what lies at data.uri on the day of a run is not known today, so no earlier run may answer for its stages
    return open_target(config.schedule.target, without_cache(config))


def _of(config: PipelineConfig, pipeline: PipelineName) -> PipelineConfig:
    """The configuration with the schedule of that pipeline as its schedule."""
    if pipeline == "training":
        return config
    catalogue = config.catalogue
    return config.for_catalogue(catalogue.source, catalogue.output, catalogue.model_uri).model_copy(
        update={"schedule": config.catalogue_schedule}
    )


def _wanted(target: Target, pipeline: PipelineName) -> Wanted:
    """The configuration as a schedule, after the checks that a single run has to pass."""
    schedule = target.config.schedule
    if pipeline == "catalogue":
        check_places(target.config, schedule.target)
        spec, parameters = compile_catalogue(target, recurring=True), catalogue_parameters(target.config)
    else:
        spec = compile_pipeline(target)
        # every run started from these parameters takes its identity from its own job
        context = run_context(target.config, "", "schedule").model_dump(mode="json")
        parameters = {**stage_parameters(target.config), "context": context}
    target.prepare(spec, parameters, ask=False)
    content = json.dumps([spec, parameters, target.scheduler().identity()], sort_keys=True)
    return Wanted(
        name=schedule.name,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        max_concurrent_runs=schedule.max_concurrent_runs,
        spec=spec,
        parameters=parameters,
        git_sha=revision(),
        digest=hashlib.sha256(content.encode()).hexdigest()[:32],
    )


def _report(config: PipelineConfig, steps: list[Step], standing: list[Standing], notes: Sequence[str] = ()) -> Report:
    return Report(config.schedule.name, config.schedule.target, tuple(steps), tuple(standing), tuple(notes))
