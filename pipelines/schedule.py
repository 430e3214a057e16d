"""When the pipeline runs by itself: the cloud's schedules brought to what the configuration says, and no further."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator

from serving.platform.frozen import Section

if TYPE_CHECKING:
    from pipelines.config import PipelineConfig

_FIELDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_PART: Final = re.compile(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?")


class ScheduleConfig(Section):
    """The recurring run; `aidetect schedule apply` makes the cloud agree with it."""

    enabled: bool = False
    """False: `apply` pauses what stands and makes nothing."""
    target: Literal["vertex", "kubeflow"] = "vertex"
    name: str = Field("ai-product-photo-detector-retraining", min_length=1, max_length=128)
    """Under this name the schedule is found again; one name has one schedule."""
    cron: str = "0 3 * * 1"
    """Minute, hour, day of the month, month, day of the week (0 or 7 is Sunday), in numbers."""
    time_zone: str = "Etc/UTC"
    """IANA name, e.g. Europe/Paris."""
    max_concurrent_runs: int = Field(1, ge=1, le=10)
    """A run that comes due while so many are still going is skipped."""

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        fields = value.split()
        if len(fields) != len(_FIELDS):
            raise ValueError("a cron has five fields: minute hour day month weekday, e.g. '0 3 * * 1'")
        for text, (name, low, high) in zip(fields, _FIELDS, strict=True):
            for part in text.split(","):
                found = _PART.fullmatch(part)
                ends = [int(end) for end in (found[1], found[2]) if end] if found else []
                if not found or any(not low <= end <= high for end in ends) or ends != sorted(ends):
                    raise ValueError(
                        f"the {name} of a cron is *, a number from {low} to {high}, a range, a list or */n"
                    )
        return " ".join(fields)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
            raise ValueError("no such time zone; write an IANA name, e.g. Europe/Paris") from error
        return value


@dataclass(frozen=True)
class Wanted:
    """What the configuration asks for."""

    name: str
    cron: str
    time_zone: str
    max_concurrent_runs: int
    spec: dict[str, Any]
    parameters: dict[str, Any]
    digest: str
    """Of spec, parameters and everything else that decides what a run does."""


@dataclass(frozen=True)
class Standing:
    """One schedule as the cloud shows it."""

    resource: str
    state: Literal["active", "paused", "completed"]
    cron: str
    """As the target writes it, with the time zone where it has one."""
    max_concurrent_runs: int
    digest: str
    created_at: str
    """ISO 8601; sorts by age."""
    next_run_at: str = ""


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


class Scheduler(Protocol):
    """The schedules of one name at one target."""

    def written(self, wanted: Wanted) -> str:
        """The cron as this target writes it.

        Raises:
            ScheduleError: the target cannot keep this time zone.
        """
        ...

    def find(self) -> list[Standing]:
        """Those that stand under the name."""
        ...

    def create(self, wanted: Wanted) -> None:
        """Make one, active."""
        ...

    def update(self, resource: str, wanted: Wanted) -> None:
        """Make one be as wanted."""
        ...

    def pause(self, resource: str) -> None:
        """Stop it from starting runs."""
        ...

    def resume(self, resource: str) -> None:
        """Let it start runs again; none is made up for."""
        ...

    def delete(self, resource: str) -> None:
        """Remove it; runs that it started go on."""
        ...


def plan(config: "PipelineConfig") -> Report:
    """What `apply` would change; nothing is changed.

    Raises:
        PreflightError, CompileError, ScheduleError: the runs it would start are refused; nothing was sent.
        StageError: the target refused or cannot be reached.
    """
    wanted, scheduler = _wanted(config), open_scheduler(config)
    standing = scheduler.find()
    return _report(config, decide(wanted, scheduler.written(wanted), standing, config.schedule.enabled), standing)


def apply(config: "PipelineConfig") -> Report:
    """Bring the target's schedules to what the configuration says; a second call changes nothing.

    Raises:
        As `plan`, and PreflightError for what only the cloud can tell; what was changed before a refusal stays, and
            the next call goes on from there.
    """
    wanted, scheduler = _wanted(config), open_scheduler(config)
    steps = decide(wanted, scheduler.written(wanted), scheduler.find(), config.schedule.enabled)
    notes: list[str] = []
    if config.schedule.target == "vertex" and any(step.verb in ("create", "update") for step in steps):
        from pipelines.preflight import ask_cloud

        notes = ask_cloud(config)
    for step in steps:
        if step.verb == "create":
            scheduler.create(wanted)
        elif step.verb == "update":
            scheduler.update(step.resource, wanted)
        else:
            getattr(scheduler, step.verb)(step.resource)
    return _report(config, steps, scheduler.find(), notes)


def pause(config: "PipelineConfig") -> Report:
    """Pause what stands under the configured name, until the next `apply`.

    Raises:
        StageError: the target refused or cannot be reached.
    """
    scheduler = open_scheduler(config)
    steps = [Step("pause", "asked for", found.resource) for found in scheduler.find() if found.state == "active"]
    for step in steps:
        scheduler.pause(step.resource)
    return _report(config, steps, scheduler.find())


def delete(config: "PipelineConfig") -> Report:
    """Remove every schedule of the configured name.

    Raises:
        StageError: the target refused or cannot be reached.
    """
    scheduler = open_scheduler(config)
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


def open_scheduler(config: "PipelineConfig") -> Scheduler:
    """The schedules of the configured name at the configured target."""
    if config.schedule.target == "vertex":
        from pipelines.targets.vertex_schedules import VertexScheduler

        return VertexScheduler(config)
    from pipelines.targets.kubeflow_schedules import KubeflowScheduler

    return KubeflowScheduler(config)


def _wanted(config: "PipelineConfig") -> Wanted:
    """The configuration as a schedule, after the checks that a single run has to pass."""
    from pipelines.compile import compile_pipeline, stage_parameters
    from pipelines.launch import run_context
    from pipelines.preflight import check_cloud, check_parameters

    schedule = config.schedule
    spec = compile_pipeline(config, schedule.target)
    # every run started from these parameters takes its identity from its own job
    context = run_context(config, "", "schedule").model_dump(mode="json")
    parameters = {**stage_parameters(config), "context": context}
    if schedule.target == "vertex":
        check_cloud(config, parameters, spec)
        place: dict[str, Any] = config.vertex.model_dump(mode="json", include={"bucket", "service_account", "network"})
        place |= {"labels": config.vertex.labels, "failure_policy": config.vertex.failure_policy}
    else:
        check_parameters(parameters, spec)
        place = config.kubeflow.model_dump(mode="json", include={"experiment", "pipeline_root", "service_account"})
    content = json.dumps([spec, parameters, place], sort_keys=True)
    return Wanted(
        name=schedule.name,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        max_concurrent_runs=schedule.max_concurrent_runs,
        spec=spec,
        parameters=parameters,
        digest=hashlib.sha256(content.encode()).hexdigest()[:32],
    )


def _report(config: "PipelineConfig", steps: list[Step], standing: list[Standing], notes: Sequence[str] = ()) -> Report:
    return Report(config.schedule.name, config.schedule.target, tuple(steps), tuple(standing), tuple(notes))
