"""The verb that scores a whole catalogue."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from pipelines.cli.detector import Model, decision_settings
from pipelines.cli.options import Json, configured, given
from pipelines.settings.names import TargetName

if TYPE_CHECKING:
    from components.catalogue.config import CatalogueConfig
    from components.catalogue.executor import Executor
    from components.catalogue.summary import Summary
    from pipelines.launch import Order
    from pipelines.settings.pipeline import PipelineConfig
    from serving.registry import ResolvedModel

TOLD_S = 30.0
"""Between two lines of progress where no terminal listens."""


def add_to(app: typer.Typer) -> None:
    """Register this module's verb."""
    app.command()(score)


@configured()
def score(
    config: "PipelineConfig",
    profile: str,
    overrides: list[str],
    source: Annotated[
        str, typer.Argument(help="Folder, glob, Parquet, feed (CSV, TSV, JSONL, XML) or gs://.", callback=given)
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder or gs:// prefix of the results.", callback=given)
    ],
    model: Model = "",
    columns: Annotated[
        list[str], typer.Option("--column", help="Column of a feed with paths or addresses. Repeatable.")
    ] = [],  # noqa: B006 - Typer reads the default, nothing writes to it
    id_column: Annotated[str, typer.Option("--id-column", help="Column of a feed that names its rows.")] = "",
    workers: Annotated[int, typer.Option(help="Processes; 0: one for each core.", min=0)] = 0,
    on: Annotated[
        str,
        typer.Option(
            help="local: processes here; ray://HOST:10001: a Ray cluster; docker, vertex, kubeflow: the pipeline."
        ),
    ] = "local",
    sync: Annotated[bool, typer.Option("--sync", help="Wait for a run in the cloud to end.")] = False,
    as_json: Json = False,
) -> None:
    """Score every photo of a catalogue into Parquet; run it again to go on where it stopped.

    Exit 0: every photo has its row; 1: it could not begin or go on, or a photo ended the process that looked at it.
    """
    chosen = _chosen(config.catalogue, columns, id_column, workers)
    if on != "local" and not _on_ray(on):
        # certificates on this disk are not there, and what they change is told, not decided by
        config = config.model_copy(update={"catalogue": chosen.model_copy(update={"c2pa_trust_lists": ()})})
        from pipelines.launch import Order

        order = Order(_target(on), profile, tuple(overrides), f"scores {source}"[:200])
        raise typer.Exit(_by_pipeline(config, order, source, output, model, sync, as_json))
    from pipelines.cli.detector import resolve_model

    raise typer.Exit(_from_here(resolve_model(model, config), source, output, chosen, _executor(on), as_json))


def _chosen(catalogue: "CatalogueConfig", columns: list[str], id_column: str, workers: int) -> "CatalogueConfig":
    """The configuration with what the options and the server's environment say instead."""
    decides = decision_settings()
    knobs: dict[str, Any] = {
        "columns": tuple(columns),
        "id_column": id_column,
        "workers": workers,
        "c2pa_trust_lists": tuple(map(str, decides.trust_lists)),
    }
    # a bound of 0 is one
    bounds = {"decision_real_below": decides.decision_real_below, "decision_ai_from": decides.decision_ai_from}
    said = {name: value for name, value in knobs.items() if value}
    return catalogue.model_copy(update=said | {name: value for name, value in bounds.items() if value is not None})


def _from_here(
    model: "ResolvedModel", source: str, output: str, chosen: "CatalogueConfig", executor: "Executor", as_json: bool
) -> int:
    """Score by this machine's processes or those of a cluster; the exit status."""
    from components.catalogue.stage import score_catalogue

    began = datetime.now(UTC).isoformat(timespec="seconds")
    with _progress(as_json) as listener:
        summary = score_catalogue(source, output, model.folder, model.version, chosen, listener, executor)
    _tell(summary, output, as_json)
    if "" < summary.planned_at < began:
        typer.echo(
            f"note: goes by the plan of {summary.planned_at}; for photos that came later name another folder", err=True
        )
    return 1 if summary.worker_died else 0


def _on_ray(on: str) -> bool:
    return on == "ray" or on.startswith("ray://")


def _executor(on: str) -> "Executor":
    """What runs the shards: processes of this machine, or a Ray cluster's tasks."""
    if _on_ray(on):
        from components.catalogue.cluster import on_ray

        return on_ray(on)
    from components.catalogue.executor import score_shards

    return score_shards


def _target(on: str) -> TargetName:
    if on not in get_args(TargetName):
        there_are = ", ".join((*get_args(TargetName), "ray://HOST:10001"))
        raise typer.BadParameter(f"no place {on!r}; there are: {there_are}", param_hint="--on")
    return cast("TargetName", on)


def _by_pipeline(
    config: "PipelineConfig", order: "Order", source: str, output: str, model: str, sync: bool, as_json: bool
) -> int:
    """Score by the compiled pipeline; the exit status."""
    from components.catalogue.stage import read_summary
    from pipelines.cli.places import of_run
    from pipelines.cli.progress import RunProgress
    from pipelines.cli.summary import print_run
    from pipelines.launch import launch_catalogue

    uri = of_run(config, model, "train", "bundle") if model else ""
    if uri and ":" not in uri:
        uri = str(Path(uri).expanduser().resolve())
    with RunProgress(quiet=as_json) as progress:
        record = launch_catalogue(config.for_catalogue(source, output, uri), order, progress, sync)
    summary = read_summary(output) if record.status == "scored" else None
    if summary is not None:
        _tell(summary, output, as_json)
    elif as_json:
        typer.echo(record.model_dump_json(indent=1))
    else:
        print_run(record, config)
    return 1 if summary is not None and summary.worker_died else record.exit_code


def _tell(summary: "Summary", output: str, as_json: bool) -> None:
    if as_json:
        typer.echo(summary.model_dump_json(indent=1))
        return
    counted = ", ".join(f"{n:,} {name}" for name, n in summary.decisions.items())
    typer.echo(f"{summary.photos:,} photos: {counted or 'none scored'}; {summary.refused:,} without a verdict")
    for reason, n in summary.refusals.items():
        typer.echo(f"  {n:,} {reason}")
    typer.echo(f"rows: {output}/parts/*.parquet   page: {output}/summary.html")
    if summary.worker_died:
        typer.echo(f"error: {summary.worker_died:,} photos ended their worker: rows with worker_died", err=True)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Photos done, rate and time left: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():
        yield _lines(quiet)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with ExitStack() as stack:
        bar = stack.enter_context(
            Progress(
                TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(), console=Console(stderr=True), transient=True,
            )
        )  # fmt: skip
        task = bar.add_task("", total=None, rate="")
        started, first = time.monotonic(), -1

        def advance(done: int, of: int) -> None:
            nonlocal first
            first = done if first < 0 else first
            rate = (done - first) / max(1e-6, time.monotonic() - started)
            bar.update(task, completed=done, total=of, rate=f"{rate:,.0f} a second" if done > first else "")

        yield advance


def _lines(quiet: bool) -> Callable[[int, int], None]:
    told = began = time.monotonic()
    first = -1

    def advance(done: int, of: int) -> None:
        nonlocal told, first
        first = done if first < 0 else first
        now = time.monotonic()
        if quiet or now - told < TOLD_S:
            return
        told = now
        rate = (done - first) / (now - began)
        left = f", about {max(1, round((of - done) / rate / 60)):,} min left" if rate and done < of else ""
        typer.echo(f"{done:,} of {of:,} photos, {rate:,.0f} a second{left}", err=True)

    return advance
