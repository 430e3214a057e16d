"""Verbs of the pipeline: run, compile, gate."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import (
    DEFAULT_CONFIG,
    ConfigFile,
    Json,
    Overrides,
    Profile,
    SummaryFile,
    TargetOption,
    configuration,
)


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.command()(run)
    app.command("compile")(compile_)
    app.command()(gate)


def run(
    on: Annotated[TargetOption, typer.Option(help="Where the pipeline runs.")] = "local",
    profile: Profile = "sample",
    overrides: Overrides = [],  # noqa: B006 - Typer reads the default, nothing writes to it
    data: Annotated[str, typer.Option(help="Images: folder, Parquet folder, gs://, hf://.")] = "",
    reason: Annotated[str, typer.Option(help="Why this run is started; kept in its record.")] = "manual",
    sync: Annotated[bool, typer.Option("--sync", help="Wait for a run in the cloud to end.")] = False,
    config_file: ConfigFile = DEFAULT_CONFIG,
    summary_file: SummaryFile = None,
    as_json: Json = False,
) -> None:
    """Run the whole pipeline: verify, train, evaluate, gate, register, deploy."""
    config = configuration(profile, overrides, config_file, data)
    from pipelines.cli.markdown import run_markdown, summary
    from pipelines.cli.progress import RunProgress
    from pipelines.launch import launch

    with summary(summary_file, "aidetect run") as told:
        with RunProgress(quiet=as_json) as progress:
            record = launch(config, on, profile, progress, reason, sync)
        told.add(run_markdown(record))
    if as_json:
        typer.echo(record.model_dump_json(indent=1))
    else:
        from pipelines.cli.summary import print_run, print_showcase

        print_run(record, config)
        from pipelines.showcase import show_one

        if (shown := show_one(record)) is not None:
            print_showcase(shown)
    raise typer.Exit(record.exit_code)


def compile_(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the spec is written (.json).")],
    target: Annotated[TargetOption, typer.Option(help="Place the spec is for.")] = "vertex",
    catalogue: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="SOURCE DESTINATION", help="Compile the pipeline that scores a catalogue instead."),
    ] = None,
    profile: Profile = "production",
    overrides: Overrides = [],  # noqa: B006 - never changed
    config_file: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Compile the pipeline to the spec that a target takes, and check it."""
    config = configuration(profile, overrides, config_file)
    from pipelines.compile import compile_catalogue, compile_pipeline
    from pipelines.settings.places import NEVER_PUSHED
    from pipelines.targets.registry import open_target

    place = open_target(target, config)
    spec = compile_catalogue(place, *catalogue) if catalogue else compile_pipeline(place)
    output.write_text(json.dumps(spec, indent=1, sort_keys=True) + "\n")
    executors = len(spec["deploymentSpec"]["executors"])
    typer.echo(f"{output}: {executors} stages for {target}, checked against KFP's protos")
    unpushed = [name for name, image in config.images.model_dump().items() if image.endswith(NEVER_PUSHED)]
    if unpushed:
        names = ", images.".join(unpushed)
        typer.echo(f"note: images.{names} stand for images never pushed; a submission will be refused", err=True)


def gate(
    evaluation: Annotated[str, typer.Argument(help="Folder or gs:// that evaluate wrote (holds evaluation.json).")],
    profile: Profile = "sample",
    overrides: Overrides = [],  # noqa: B006 - never changed
    config_file: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Judge an evaluation again, under the configured policy; exit 2 when it is refused."""
    config = configuration(profile, overrides, config_file)
    from components.platform.cloud_storage import on_disk
    from components.quality_gate.stage import judge_folder

    with on_disk(evaluation) as folder:
        verdict = judge_folder(folder, config.gate)
    if as_json:
        typer.echo(verdict.model_dump_json(indent=1))
    else:
        from pipelines.cli.summary import print_verdict

        print_verdict(verdict)
    sys.stdout.flush()
    raise typer.Exit(0 if verdict.passed else 2)
