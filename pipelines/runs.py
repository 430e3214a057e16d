"""The record of a run: what ran, how long, what came out, and where it lies."""

import fcntl
import json
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipelines.settings.names import TASKS, PipelineName, Task
from serving.platform.errors import RunError, one_line
from serving.platform.records import read_record

RUN_JSON: Final = "run.json"
PIPELINE_FILE: Final = "pipeline.json"
PARAMETERS_FILE: Final = "parameters.json"
REUSED_FILE: Final = "reused.json"
"""KFP's name of each stage that is taken over from an earlier run -> its folder there."""
LAST: Final = "last"
"""As a run's id: the one that was started last."""
_LOCK: Final = "run.lock"
_SHOWN: Final = 5
_IDENTITY: Final = r"^\w[\w.-]*$"

StageStatus = Literal["pending", "running", "succeeded", "failed"]
RunStatus = Literal[
    "running", "deployed", "registered", "scored", "refused", "failed", "interrupted", "submitted", "lost"
]

EXIT_CODES: Final[dict[RunStatus, int]] = {
    "running": 0,
    "submitted": 0,
    "deployed": 0,
    "registered": 0,
    "scored": 0,
    "refused": 2,
    "failed": 1,
    "interrupted": 1,
    "lost": 1,
}


class StageRun(BaseModel):
    """One stage of one run."""

    model_config = ConfigDict(extra="forbid")

    name: Task
    status: StageStatus = "pending"
    seconds: float = 0.0
    output_dir: str = ""
    cached: bool = False
    """The target answered it with what an earlier run had made."""

    @property
    def shown(self) -> str:
        """Its status, for people."""
        return "not run" if self.status == "pending" else "from the cache" if self.cached else self.status


class RunRecord(BaseModel):
    """`run.json` of a run's folder."""

    model_config = ConfigDict(extra="forbid")

    run_id: str = Field(pattern=_IDENTITY)
    """Also the name of its folder."""
    pipeline: PipelineName = "training"
    target: str
    profile: str
    overrides: list[str] = []
    """`--set` that it was started with."""
    reason: str = "manual"
    git_sha: str = "unknown"
    started_at: str
    seconds: float = 0.0
    status: RunStatus = "running"
    """`lost`: never written; what `running` is called once the process that ran it is gone."""
    error: str = ""
    """One line; empty unless the run failed."""
    headline: str = ""
    """The gate's verdict in one line, once there is one."""
    metrics: dict[str, float] = {}
    stages: list[StageRun] = []
    folder: str
    resource: str = ""
    """Name of the run at its target, e.g. `projects/…/pipelineJobs/…`; empty for a run on this machine."""
    link: str = ""
    """Console page of a run in the cloud."""

    def stage(self, name: Task) -> StageRun:
        """The entry of one stage, which must be one of this pipeline's."""
        return next(stage for stage in self.stages if stage.name == name)

    def output(self, stage: Task, name: str) -> Path:
        """Path of one stage's artifact."""
        return Path(self.stage(stage).output_dir) / name

    def ran(self, stage: Task) -> bool:
        """Whether the stage ran to its end; no stage of another pipeline ever did."""
        return any(entry.name == stage and entry.status == "succeeded" for entry in self.stages)

    def stop_stages(self) -> None:
        """Of a run that has ended: what was under way did not come to its end."""
        for stage in self.stages:
            if stage.status == "running":
                stage.status = "failed"

    @property
    def is_open(self) -> bool:
        """Whether the run was submitted and had not ended when it was last seen."""
        return self.status == "submitted" and bool(self.resource)

    @property
    def exit_code(self) -> int:
        """0 done, 2 the gate refused, 1 failed."""
        return EXIT_CODES[self.status]

    def save(self) -> None:
        """Write `run.json`; readers see the old or the new record, never half of one."""
        path = Path(self.folder) / RUN_JSON
        partial = path.with_suffix(".partial")
        partial.write_text(self.model_dump_json(indent=1) + "\n")
        partial.replace(path)

    def write_inputs(self, spec: dict[str, Any], parameters: dict[str, Any]) -> None:
        """Keep what the run is started with in its folder: the very files that are run or submitted."""
        (Path(self.folder) / PIPELINE_FILE).write_text(json.dumps(spec, indent=1))
        (Path(self.folder) / PARAMETERS_FILE).write_text(json.dumps(parameters, indent=1))

    def take_over(self, stages: dict[str, str]) -> None:
        """Note which stages of an earlier run serve this one (see `pipelines.resuming`)."""
        (Path(self.folder) / REUSED_FILE).write_text(json.dumps(stages, indent=1))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within: this process runs it. The kernel lets go of the lock however the process ends."""
        with (Path(self.folder) / _LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def together(states: Sequence[StageStatus]) -> StageStatus:
    """How a stage stands that ran several times at once: the worst of what is known, and done only when all are."""
    if len(set(states)) == 1:
        return states[0]
    return "failed" if "failed" in states else "running"


def new_run_id() -> str:
    """Identity of a run that starts now, in UTC."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")


def new_run(
    workspace: Path, target: str, profile: str, reason: str, git_sha: str, pipeline: PipelineName = "training"
) -> RunRecord:
    """Start a record with a folder of its own under `workspace/runs`."""
    started = datetime.now(UTC)
    stamp = new_run_id()
    runs = workspace.resolve() / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for attempt in range(1000):
        run_id = stamp if attempt == 0 else f"{stamp}-{attempt}"
        try:
            (runs / run_id).mkdir()
        except FileExistsError:
            continue
        break
    record = RunRecord(
        run_id=run_id,
        pipeline=pipeline,
        target=target,
        profile=profile,
        reason=reason,
        git_sha=git_sha,
        started_at=started.isoformat(timespec="seconds"),
        stages=[StageRun(name=task) for task in TASKS[pipeline]],
        folder=str(runs / run_id),
    )
    record.save()
    return record


def list_runs(workspace: Path, damaged: list[RunError] | None = None) -> Iterator[RunRecord]:
    """Records of all runs in a workspace, newest first.

    Args:
        workspace: the folder that has `runs`.
        damaged: gets what is wrong with each record that cannot be read, and is passed over.
    """
    for path in sorted((workspace / "runs").glob(f"*/{RUN_JSON}"), key=os.path.getmtime, reverse=True):
        try:
            record = _read(path)
        except RunError as error:
            if damaged is not None:
                damaged.append(error)
            continue
        _rebase(record, path.resolve().parent)
        if record.status == "running" and not _is_held(path.parent):
            record.status = "lost"
            record.stop_stages()
            record.error = record.error or "its process ended without a word (killed, or the machine went down)"
        yield record


def _read(path: Path) -> RunRecord:
    """One record as it was written; raises RunError with what is wrong with it."""
    try:
        return RunRecord.model_validate_json(read_record(path))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: damaged: {one_line(error)}; bring it back, or delete the run's folder") from error


def _rebase(record: RunRecord, here: Path) -> None:
    """Let the record of a workspace that was moved or copied name the files that lie beside it now."""
    written, now = Path(record.folder).parents[1], here.parents[1]
    if written == now:
        return
    record.folder = str(here)
    for stage in record.stages:
        if Path(stage.output_dir).is_relative_to(written):
            stage.output_dir = str(now / Path(stage.output_dir).relative_to(written))


def find_run(workspace: Path, run_id: str) -> RunRecord:
    """Record of one run.

    Args:
        workspace: the folder that has `runs`.
        run_id: its id, or `last`.

    Raises:
        RunError: there is no such run, with the newest there are; or its record is damaged.
    """
    if run_id == LAST:
        # by when they were started, which is what their ids say: a later look at a run in the cloud writes its record
        run_id = max((path.parent.name for path in (workspace / "runs").glob(f"*/{RUN_JSON}")), default=LAST)
    damaged: list[RunError] = []
    records = list(list_runs(workspace, damaged))
    for record in records:
        if record.run_id == run_id:
            return record
    place = f"{workspace / 'runs' / run_id / RUN_JSON}:"
    for error in damaged:
        if str(error).startswith(place):
            raise error
    known = ", ".join(record.run_id for record in records[:_SHOWN])
    hint = f"the newest are: {known}; all: aidetect runs" if known else "there are none yet; start one: aidetect run"
    raise RunError(f"no run {run_id!r} in {workspace / 'runs'}; {hint}")


def median_seconds(records: Iterable[RunRecord]) -> dict[Task, tuple[float, int]]:
    """Median seconds of each stage that ran to its end, and in how many of the records it did."""
    seconds: dict[Task, list[float]] = {}
    for record in records:
        for entry in record.stages:
            if entry.status == "succeeded" and entry.seconds > 0:
                seconds.setdefault(entry.name, []).append(entry.seconds)
    return {stage: (statistics.median(found), len(found)) for stage, found in seconds.items()}


def _is_held(folder: Path) -> bool:
    """Whether the process that runs it is alive; looking writes nothing."""
    try:
        with (folder / _LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
