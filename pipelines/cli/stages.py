"""Verbs that run one stage alone: train, evaluate, register; verify_data is `data import`, quality_gate `gate`."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, configured, writable
from pipelines.cli.places import of_run
from serving.platform.errors import ConfigError

if TYPE_CHECKING:
    from components.artifacts.context import RunContext
    from components.artifacts.evaluation import Metric
    from pipelines.settings.pipeline import PipelineConfig

DatasetFolder = Annotated[
    str,
    typer.Option("--dataset", metavar="PLACE", help="Run id, or what `aidetect data import` packed: folder, gs://."),
]


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.command()(train)
    app.command()(evaluate)
    app.command()(register)


@configured(absolute=True)
def train(
    config: "PipelineConfig",
    dataset: DatasetFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the bundle; must not exist.")],
    curves: Annotated[
        Path | None, typer.Option(help="Write the training curves (HTML) here.", callback=writable)
    ] = None,
    track: Annotated[bool, typer.Option(help="Record the training in MLflow.")] = True,
    as_json: Json = False,
) -> None:
    """Train on a packed dataset and export a bundle, without gate or registry."""
    from components.platform.cloud_storage import on_disk
    from components.train.processes import train as run

    with on_disk(of_run(config, dataset, "verify_data", "dataset")) as folder:
        context = _context(config) if track else _context(config).model_copy(update={"tracking_uri": ""})
        summary = run(folder, output, config.train, context, curves)
    if summary is None:  # another process of this torchrun writes the bundle
        return
    typer.echo(json.dumps(asdict(summary), indent=1) if as_json else f"bundle: {output}")


@configured(absolute=True)
def evaluate(
    config: "PipelineConfig",
    bundle: Annotated[
        str,
        typer.Option(
            "--bundle", metavar="PLACE", help="Bundle to score: a run id, folder, gs:// or models:/NAME@ALIAS."
        ),
    ],
    dataset: DatasetFolder = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for evaluation.json and the report.")
    ] = None,
    outside: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            help="Score this labelled folder ({real,ai_generated}/*; or gs://) instead of a dataset's test split.",
        ),
    ] = "",
    champion: Annotated[
        str, typer.Option(metavar="PLACE", help="Bundle to compare with, as --bundle; default: evaluate.champion_uri.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Score a bundle on the frozen test split, or on a labelled folder; `aidetect gate` judges the former.

    With --outside: errors that look sure, what goes to review, and an AUC only where size and codec do not make it.
    """
    if outside:
        _evaluate_outside(config, bundle, outside, as_json)
        return
    if not dataset or output is None:
        raise ConfigError("evaluate takes --dataset and --output, or --outside PLACE")
    if champion:
        config = config.changed("evaluate", champion_uri=of_run(config, champion, "train", "bundle"))
    from components.evaluate.stage import evaluate as run
    from components.platform.cloud_storage import on_disk
    from serving.registry import resolve

    report = output / "report.html"
    candidate = resolve(
        of_run(config, bundle, "train", "bundle"), config.paths.workspace / "models", config.tracking_uri
    ).folder
    with on_disk(of_run(config, dataset, "verify_data", "dataset")) as folder:
        found = run(candidate, folder, config.evaluate, _context(config), output, report)
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
        return
    for name, metric in found.test.metrics.items():
        typer.echo(f"{name:<16} {_share(metric)}")
    for name, share in found.test.decisions.told if found.test.decisions else ():
        typer.echo(f"{name:<28} {_share(share)}")
    typer.echo(f"report: {report}")


def _evaluate_outside(config: "PipelineConfig", bundle: str, outside: str, as_json: bool) -> None:
    from components.outside.stage import evaluate_outside
    from pipelines.cli.detector import decision_policy
    from serving.detector.detector import Detector
    from serving.registry import resolve

    place = of_run(config, bundle, "train", "bundle")
    found = resolve(place, config.paths.workspace / "models", config.tracking_uri)
    detector = Detector.load(found.folder, threads=1)
    result = evaluate_outside(outside, detector, decision_policy(), config.evaluate)
    if as_json:
        typer.echo(result.model_dump_json(indent=1))
        return
    for one in result.classes:
        typer.echo(f"{one.label}: {one.n:,} judged, {one.refused:,} refused")
        for name, share in one.told:
            typer.echo(f"  {name:<28} {_share(share)}")
    typer.echo(f"roc auc: {_share(result.roc_auc)}" if result.roc_auc else f"no AUC: {result.roc_auc_refused}")


def _share(metric: "Metric | None") -> str:
    if metric is None:
        return "-"
    interval = "" if metric.low is None or metric.high is None else f"  [{metric.low:.4f}, {metric.high:.4f}]"
    return f"{metric.value:.4f}{interval}"


@configured(absolute=True)
def register(
    config: "PipelineConfig",
    bundle: Annotated[Path, typer.Option(help="Folder that train made.")],
    evaluation: Annotated[Path, typer.Option(help="Folder that evaluate made.")],
    verdict: Annotated[Path, typer.Option(help="Folder that the gate of a run made.")],
    as_json: Json = False,
) -> None:
    """Register a bundle that passed the gate as the new challenger; `aidetect deploy` brings it into service."""
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
