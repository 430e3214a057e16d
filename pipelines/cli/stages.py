"""Verbs that run one stage alone: train, evaluate, register; verify_data is `data import`, quality_gate `gate`."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import DEFAULT_CONFIG, ConfigFile, Json, Overrides, Profile, local_configuration

if TYPE_CHECKING:
    from components.artifacts.context import RunContext
    from pipelines.settings.pipeline import PipelineConfig

DatasetFolder = Annotated[
    str, typer.Option("--dataset", metavar="PLACE", help="Folder or gs:// that `aidetect data import` packed.")
]


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.command()(train)
    app.command()(evaluate)
    app.command()(register)


def train(
    dataset: DatasetFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the bundle; must not exist.")],
    curves: Annotated[Path | None, typer.Option(help="Write the training curves (HTML) here.")] = None,
    track: Annotated[bool, typer.Option(help="Record the training in MLflow.")] = True,
    profile: Profile = "sample",
    overrides: Overrides = [],  # noqa: B006 - Typer reads the default, nothing writes to it
    config_file: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Train on a packed dataset and export a bundle, without gate or registry."""
    config = local_configuration(profile, overrides, config_file)
    from components.platform.cloud_storage import on_disk
    from components.train.stage import train as run

    with on_disk(dataset) as folder:
        context = _context(config) if track else _context(config).model_copy(update={"tracking_uri": ""})
        summary = run(folder, output, config.train, context, curves)
    if summary is None:  # another process of this torchrun writes the bundle
        return
    typer.echo(json.dumps(asdict(summary), indent=1) if as_json else f"bundle: {output}")


def evaluate(
    dataset: DatasetFolder,
    bundle: Annotated[
        str, typer.Option("--bundle", metavar="PLACE", help="Bundle to score: a folder, gs:// or models:/NAME@ALIAS.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for evaluation.json and the report.")],
    champion: Annotated[
        str, typer.Option(metavar="PLACE", help="Bundle to compare with, as --bundle; default: evaluate.champion_uri.")
    ] = "",
    profile: Profile = "sample",
    overrides: Overrides = [],  # noqa: B006 - never changed
    config_file: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Score a bundle on the frozen test split; `aidetect gate` judges the result."""
    extra = [f"evaluate.champion_uri={champion}"] if champion else []
    config = local_configuration(profile, [*overrides, *extra], config_file)
    from components.evaluate.stage import evaluate as run
    from components.platform.cloud_storage import on_disk
    from serving.registry import resolve

    report = output / "report.html"
    candidate = resolve(bundle, config.paths.workspace / "models", config.tracking_uri).folder
    with on_disk(dataset) as folder:
        found = run(candidate, folder, config.evaluate, _context(config), output, report)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
        return
    for name, metric in found.test.metrics.items():
        interval = "" if metric.low is None or metric.high is None else f"  [{metric.low:.4f}, {metric.high:.4f}]"
        typer.echo(f"{name:<16} {metric.value:.4f}{interval}")
    typer.echo(f"report: {report}")


def register(
    bundle: Annotated[Path, typer.Option(help="Folder that train made.")],
    evaluation: Annotated[Path, typer.Option(help="Folder that evaluate made.")],
    verdict: Annotated[Path, typer.Option(help="Folder that the gate of a run made.")],
    profile: Profile = "sample",
    overrides: Overrides = [],  # noqa: B006 - never changed
    config_file: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Register a bundle that passed the gate as the new challenger; `aidetect deploy` brings it into service."""
    config = local_configuration(profile, overrides, config_file)
    from components.register.stage import Passed
    from components.register.stage import register as run

    passed = Passed(bundle, evaluation, verdict, config.gate)
    with tempfile.TemporaryDirectory() as folder:
        version = run(passed, config.register_, _context(config), Path(folder) / "version")
    typer.echo(version.model_dump_json(indent=1) if as_json else f"version {version.version}: {version.uri}")


def _context(config: "PipelineConfig") -> "RunContext":
    from pipelines.launch import run_context
    from pipelines.runs import new_run_id

    return run_context(config, new_run_id(), "manual")
