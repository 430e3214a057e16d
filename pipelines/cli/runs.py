"""Verbs about runs: list, show, follow, cancel."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, SummaryFile, configuration, configured, given

if TYPE_CHECKING:
    from pathlib import Path

    from pipelines.runs import RunRecord
    from pipelines.settings.pipeline import PipelineConfig
    from serving.platform.errors import RunError

runs_app = typer.Typer(help="Runs of the pipeline: those of this workspace, here and in the cloud.")

Run = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of the run, as `aidetect runs` lists it, or last.", callback=given)
]


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.add_typer(runs_app, name="runs")


@runs_app.callback(invoke_without_command=True)
@configured()
def runs(config: "PipelineConfig", context: typer.Context, as_json: Json = False) -> None:
    """List the runs in the workspace, newest first; or see the verbs below."""
    if context.invoked_subcommand is None:
        _list(config, as_json)


@runs_app.command("list")
@configured()
def runs_list(config: "PipelineConfig", as_json: Json = False) -> None:
    """List the runs in the workspace, newest first, as they were last seen."""
    _list(config, as_json)


@runs_app.command("show")
@configured("")
def runs_show(
    config: "PipelineConfig",
    run_id: Run,
    overrides: list[str],
    config_file: "Path | None",
    profile: str,
    refresh: Annotated[bool, typer.Option(help="Ask the cloud first how a run there stands.")] = True,
    as_json: Json = False,
) -> None:
    """Show one run: its stages, figures, verdict and where everything lies."""
    record, config = _find(run_id, config, profile, overrides, config_file)
    if refresh:
        _refresh(record, config)
    _show(record, config, as_json)


@runs_app.command("follow")
@configured("")
def runs_follow(
    config: "PipelineConfig",
    run_id: Run,
    overrides: list[str],
    config_file: "Path | None",
    profile: str,
    summary_file: SummaryFile = None,
    as_json: Json = False,
) -> None:
    """Follow a run in the cloud to its end; exit code as `aidetect run --sync`."""
    record, config = _find(run_id, config, profile, overrides, config_file)
    from pipelines.cli.markdown import run_markdown, summary
    from pipelines.cli.progress import RunProgress
    from pipelines.targets.registry import open_target
    from pipelines.targets.target import follow

    target = open_target(record.target, config)
    if not record.resource:
        target.refresh(record)
    with summary(summary_file, "aidetect runs follow") as told:
        with RunProgress(quiet=as_json) as progress:
            follow(target, record, progress)
        told.add(run_markdown(record))
    _show(record, config, as_json)
    raise typer.Exit(record.exit_code)


@runs_app.command("cancel")
@configured("")
def runs_cancel(
    config: "PipelineConfig",
    run_id: Run,
    overrides: list[str],
    config_file: "Path | None",
    profile: str,
    as_json: Json = False,
) -> None:
    """Cancel a run in the cloud; what it had registered or deployed stays."""
    record, config = _find(run_id, config, profile, overrides, config_file)
    from pipelines.targets.registry import open_target
    from serving.platform.errors import RunError

    if record.resource and not record.is_open:
        raise RunError(f"run {record.run_id} has ended ({record.status}); there is nothing to cancel")
    open_target(record.target, config).cancel(record)
    if as_json:
        typer.echo(json.dumps({"run_id": record.run_id, "resource": record.resource, "cancel": "requested"}))
    else:
        typer.echo(f"run {record.run_id}: asked to stop; see: aidetect runs show {record.run_id}")


def _list(config: "PipelineConfig", as_json: bool) -> None:
    from pipelines.runs import list_runs

    damaged: list[RunError] = []
    records = list(list_runs(config.paths.workspace, damaged))
    for error in damaged:
        typer.echo(f"left out: {error}", err=True)
    if as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
        return
    from pipelines.cli.summary import print_runs

    if records or not damaged:
        print_runs(records)


def _find(
    run_id: str, config: "PipelineConfig", profile: str, overrides: list[str], config_file: "Path | None"
) -> "tuple[RunRecord, PipelineConfig]":
    """The record, and the configuration of the profile that the run was started with unless another is named."""
    from pipelines.runs import find_run

    record = find_run(config.paths.workspace, run_id)
    return record, config if profile else configuration(record.profile, overrides, config_file)


def _refresh(record: "RunRecord", config: "PipelineConfig") -> None:
    """Bring a run in the cloud up to date; one that cannot be asked about is shown as it was last seen."""
    from pipelines.targets.registry import open_target
    from serving.platform.errors import StageError

    if not record.is_open:
        return
    try:
        for line in open_target(record.target, config).refresh(record):
            typer.echo(f"note: {line}", err=True)
    except StageError as error:
        typer.echo(f"note: shown as last seen: {error}", err=True)


def _show(record: "RunRecord", config: "PipelineConfig", as_json: bool) -> None:
    if as_json:
        typer.echo(record.model_dump_json(indent=1))
        return
    from pipelines.cli.summary import print_run

    print_run(record, config)
