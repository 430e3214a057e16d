"""Verbs about data: import, verify, download."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, configured, writable

if TYPE_CHECKING:
    from components.artifacts.dataset import DatasetSummary
    from components.verify_data.findings import Findings
    from pipelines.settings.pipeline import PipelineConfig

Output = Annotated[str, typer.Option("--output", "-o", metavar="PLACE", help="Folder or gs:// for the packed dataset.")]
data_app = typer.Typer(help="Check and pack images before training.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.add_typer(data_app, name="data")


@data_app.command("verify")
@configured()
def verify(
    config: "PipelineConfig",
    uri: Annotated[str, typer.Argument(help="Folder, Parquet folder, gs:// or hf://; default: data.uri.")] = "",
    report: Annotated[Path | None, typer.Option(help="Write the HTML report here.", callback=writable)] = None,
    as_json: Json = False,
) -> None:
    """Check every image: damage, duplicates, leaks between splits, label conflicts, format shortcuts."""
    from components.verify_data.stage import verify as run

    findings, summary = run(uri or config.data.uri, config.verify_data, report)
    _show(findings, summary, as_json)
    if report is not None and not as_json:
        typer.echo(f"report: {report}")
    raise typer.Exit(1 if findings.problems else 0)


@data_app.command("import")
@configured()
def import_(
    config: "PipelineConfig",
    uri: Annotated[str, typer.Argument(help="Folder, Parquet folder, gs:// or hf://.")],
    output: Output,
    as_json: Json = False,
) -> None:
    """Check images and pack them into Parquet, to train from as often as wanted."""
    from components.verify_data.importing import import_dataset

    with _packed_to(output) as folder:
        packed = import_dataset(uri, folder, config.verify_data)
    _show(*packed, as_json)


@data_app.command("download")
def download(
    name: Annotated[str, typer.Argument(help="Short name (cifake) or hf://OWNER/NAME.")],
    output: Output,
    as_json: Json = False,
) -> None:
    """Fetch a public dataset from the Hugging Face hub and pack it."""
    from components.verify_data.importing import download as run

    with _packed_to(output) as folder:
        packed = run(name, folder)
    _show(*packed, as_json)


@contextmanager
def _packed_to(output: str) -> Iterator[Path]:
    """The folder to pack into; what is meant for a bucket is sent there when it is whole."""
    from components.platform.cloud_storage import holds, send_folder
    from serving.platform.cloud_storage import SCHEME
    from serving.platform.errors import StageError

    if not output.startswith(SCHEME):
        yield Path(output)
        return
    if holds(output):
        raise StageError(f"{output}: there is something already; give another place or remove it")
    with tempfile.TemporaryDirectory(prefix="aidetect-packed-") as scratch:
        yield Path(scratch)
        send_folder(Path(scratch), output)


def _show(findings: "Findings", summary: "DatasetSummary", as_json: bool) -> None:
    if as_json:
        document = {
            "summary": summary.model_dump(mode="json"),
            "problems": findings.problems,
            "warnings": findings.warnings,
            "skipped": [entry.model_dump(mode="json") for entry in findings.skipped],
            "offenders": [offender.model_dump(mode="json") for offender in findings.offenders],
        }
        typer.echo(json.dumps(document, indent=1))
        return
    for name, split in summary.splits.items():
        classes = ", ".join(f"{count:,} {label}" for label, count in split.by_class.items())
        typer.echo(f"{name:<17} {split.rows:>7,} images: {classes}")
    typer.echo(f"fingerprint       {summary.fingerprint[:16]}…")
    for warning in findings.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for problem in findings.problems:
        typer.echo(f"problem: {problem}", err=True)
