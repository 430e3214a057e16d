"""Verbs of the pipeline: run, compile, gate."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, SummaryFile, TargetOption, configuration, configured, given, writable
from pipelines.cli.places import of_run, require_data

if TYPE_CHECKING:
    from pipelines.settings.pipeline import PipelineConfig


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.command()(run)
    app.command("compile")(compile_)
    app.command()(gate)


@configured()
def run(
    config: "PipelineConfig",
    profile: str,
    overrides: list[str],
    config_file: Path | None,
    on: Annotated[TargetOption, typer.Option(help="Where the pipeline runs.")] = "local",
    data: Annotated[str, typer.Option(help="Images: folder, Parquet folder, gs://, hf://.", callback=given)] = "",
    reason: Annotated[str, typer.Option(help="Why this run is started; kept in its record.")] = "manual",
    sync: Annotated[bool, typer.Option("--sync", help="Wait for a run in the cloud to end.")] = False,
    resume: Annotated[
        str,
        typer.Option(
            metavar="RUN",
            help="Go on with this run (its id, or last) at the stage that failed or whose settings changed.",
            callback=given,
        ),
    ] = "",
    summary_file: SummaryFile = None,
    as_json: Json = False,
) -> None:
    """Run the whole pipeline: verify, train, evaluate, gate, register, deploy."""
    from pipelines.cli.markdown import run_markdown, summary
    from pipelines.cli.progress import RunProgress
    from pipelines.launch import Order, launch
    from pipelines.runs import find_run

    if data:
        place = data if "://" in data else str(Path(data).expanduser().resolve())
        overrides = [*overrides, f"data.uri={place}"]
        config = config.changed("data", uri=data)
    order = Order(on, profile, tuple(overrides), reason)
    if resume:
        order = Order.again(find_run(config.paths.workspace, resume), tuple(overrides))
        config = configuration(order.profile, list(order.overrides), config_file)
    with summary(summary_file, "aidetect run") as told:
        if data and on == "local":
            require_data(data)
        with RunProgress(quiet=as_json) as progress:
            record = launch(config, order, progress, sync)
        told.add(run_markdown(record))
    if as_json:
        typer.echo(record.model_dump_json(indent=1))
    else:
        from pipelines.cli.summary import print_run, print_showcase
        from pipelines.showcase import show_one

        print_run(record, config)
        if (shown := show_one(record)) is not None:
            print_showcase(shown)
    raise typer.Exit(record.exit_code)


@configured("production")
def compile_(
    config: "PipelineConfig",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the spec is written (.json).", callback=writable)
    ],
    target: Annotated[TargetOption, typer.Option(help="Place the spec is for.")] = "vertex",
    catalogue: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="SOURCE DESTINATION", help="Compile the pipeline that scores a catalogue instead."),
    ] = None,
) -> None:
    """Compile the pipeline to the spec that a target takes, and check it."""
    from pipelines.compile import compile_catalogue, compile_pipeline
    from pipelines.settings.places import NEVER_PUSHED
    from pipelines.targets.registry import open_target

    if catalogue:
        config = config.for_catalogue(*catalogue)
    place = open_target(target, config)
    spec = compile_catalogue(place) if catalogue else compile_pipeline(place)
    output.write_text(json.dumps(spec, indent=1, sort_keys=True) + "\n")
    executors = len(spec["deploymentSpec"]["executors"])
    typer.echo(f"{output}: {executors} stages for {target}, checked against KFP's protos")
    unpushed = [name for name, image in config.images.model_dump().items() if image.endswith(NEVER_PUSHED)]
    if unpushed:
        names = ", images.".join(unpushed)
        typer.echo(f"note: images.{names} stand for images never pushed; a submission will be refused", err=True)


@configured()
def gate(
    config: "PipelineConfig",
    evaluation: Annotated[
        str, typer.Argument(help="Run id, or folder or gs:// that evaluate wrote (holds evaluation.json).")
    ],
    as_json: Json = False,
) -> None:
    """Judge an evaluation again, under the configured policy; exit 2 when it is refused."""
    from components.platform.cloud_storage import on_disk
    from components.quality_gate.stage import judge_folder

    with on_disk(of_run(config, evaluation, "evaluate", "evaluation")) as folder:
        verdict = judge_folder(folder, config.gate)
    if as_json:
        typer.echo(verdict.model_dump_json(indent=1))
    else:
        from pipelines.cli.summary import print_verdict

        print_verdict(verdict)
    sys.stdout.flush()
    raise typer.Exit(0 if verdict.passed else 2)
