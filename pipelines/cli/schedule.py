"""Verbs about the recurring run: schedule plan, apply, pause, delete."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, configured
from pipelines.settings.names import PipelineName

if TYPE_CHECKING:
    from pipelines.schedule import Report
    from pipelines.settings.pipeline import PipelineConfig

Pipeline = Annotated[
    PipelineName,
    typer.Option(help="Which recurring run: section `schedule`, or `catalogue_schedule` of the configuration."),
]

schedule_app = typer.Typer(
    help="The recurring runs, as the configuration says: the training, and the scoring of a catalogue.",
    no_args_is_help=True,
)


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.add_typer(schedule_app, name="schedule")


@schedule_app.command("plan")
@configured("production")
def plan(
    config: "PipelineConfig",
    pipeline: Pipeline = "training",
    as_json: Json = False,
) -> None:
    """Show what `apply` would change; changes nothing."""
    from pipelines.schedule import plan as run

    _show(run(config, pipeline), as_json, "would ")


@schedule_app.command("apply")
@configured("production")
def apply(
    config: "PipelineConfig",
    pipeline: Pipeline = "training",
    as_json: Json = False,
) -> None:
    """Bring the cloud's schedule to what the configuration says; again changes nothing."""
    from pipelines.schedule import apply as run

    _show(run(config, pipeline), as_json)


@schedule_app.command("pause")
@configured("production")
def pause(
    config: "PipelineConfig",
    pipeline: Pipeline = "training",
    as_json: Json = False,
) -> None:
    """Pause the schedule until the next `apply`; for longer set schedule.enabled to false."""
    from pipelines.schedule import pause as run

    _show(run(config, pipeline), as_json)


@schedule_app.command("delete")
@configured("production")
def delete(
    config: "PipelineConfig",
    pipeline: Pipeline = "training",
    as_json: Json = False,
) -> None:
    """Remove the schedule; runs that it started go on."""
    from pipelines.schedule import delete as run

    _show(run(config, pipeline), as_json)


def _show(report: "Report", as_json: bool, mood: str = "") -> None:
    for note in report.notes:
        typer.echo(note, err=True)
    if as_json:
        typer.echo(json.dumps(report.document(), indent=1))
        return
    for step in report.steps:
        typer.echo(f"{mood}{step.verb} {step.resource or report.name}: {step.why}")
    if not report.steps:
        typer.echo("nothing to change")
    for found in report.standing:
        following = f", next run {found.next_run_at}" if found.next_run_at and found.state == "active" else ""
        typer.echo(f"{found.resource}: {found.state}, {found.cron}{following}")
    if not report.standing:
        typer.echo(f"{report.target} has no schedule {report.name}")
