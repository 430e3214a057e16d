"""Verbs about data: import, verify, download."""

import json
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, configured, given, writable

if TYPE_CHECKING:
    from components.artifacts.dataset import DatasetSummary
    from components.verify_data.findings import Findings
    from pipelines.settings.pipeline import PipelineConfig

Output = Annotated[
    str,
    typer.Option("--output", "-o", metavar="PLACE", help="Folder or gs:// for the packed dataset.", callback=given),
]
data_app = typer.Typer(help="Check and pack images before training.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.add_typer(data_app, name="data")


@data_app.command("verify")
@configured()
def verify(
    config: "PipelineConfig",
    uri: Annotated[
        str, typer.Argument(help="Folder, Parquet folder, gs:// or hf://; default: data.uri.", callback=given)
    ] = "",
    report: Annotated[Path | None, typer.Option(help="Write the HTML report here.", callback=writable)] = None,
    as_json: Json = False,
) -> None:
    """Check every image: damage, duplicates, leaks between splits, label conflicts, format shortcuts."""
    from components.verify_data.classes import ClassNames
    from components.verify_data.layout import Reading
    from components.verify_data.stage import verify as run

    reading = Reading(ClassNames(config.data.labels))
    findings, summary = run(uri or config.data.uri, config.verify_data, report, reading)
    _show(findings, summary, as_json)
    if report is not None and not as_json:
        typer.echo(f"report: {report}")
    raise typer.Exit(1 if findings.problems else 0)


@data_app.command("import")
@configured()
def import_(
    config: "PipelineConfig",
    uri: Annotated[
        str,
        typer.Argument(
            help="Folder, table (.csv, .tsv, .parquet) of paths and labels, gs:// or hf://.", callback=given
        ),
    ],
    output: Output,
    test: Annotated[
        float | None, typer.Option("--test", metavar="SHARE", help="Cut this share as test, e.g. 0.2.")
    ] = None,
    val: Annotated[
        float | None,
        typer.Option(
            "--val", metavar="SHARE", help="Cut this share as val; default: verify_data.val_fraction of train."
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME=CLASS", help="What a class name of yours means, e.g. genuine=real."),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="Column that names each photo's source; no source stands in two splits. 'folder': the photo's folder; "
            "'none': no column. Default: the column 'source', if there is one."
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Check images, cut splits where there are none, and pack all into Parquet, to train from as often as wanted.

    Splits are cut by content: copies, near copies and images of one source stay together, each class keeps its share,
    and the same images are always cut the same way (verify_data.seed).
    """
    from components.verify_data.classes import ClassNames, labels_of
    from components.verify_data.importing import import_dataset
    from components.verify_data.layout import Cut, Reading

    try:
        own = labels_of(labels or [])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    reading = Reading(ClassNames({**config.data.labels, **own}), Cut(test, val), source)
    with _packed_to(output) as folder:
        findings, summary = import_dataset(uri, folder, config.verify_data, reading)
    _show(findings, summary, as_json)
    for name in reading.classes.unmet(own):
        typer.echo(f"warning: --label {name}: no image there is of a class of that name", err=True)
    if not as_json:
        typer.echo(f"next              aidetect run --data {shlex.quote(output)}")


@data_app.command("download")
def download(
    name: Annotated[str, typer.Argument(help="Short name (cifake) or hf://OWNER/NAME.", callback=given)],
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
        yield Path(output).expanduser()
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
            "cut": findings.cut,
            "skipped": [entry.model_dump(mode="json") for entry in findings.skipped],
            "offenders": [offender.model_dump(mode="json") for offender in findings.offenders],
        }
        typer.echo(json.dumps(document, indent=1))
        return
    for name, split in summary.splits.items():
        classes = ", ".join(f"{count:,} {label}" for label, count in split.by_class.items())
        typer.echo(f"{name:<17} {split.rows:>7,} images: {classes}")
    for told in findings.cut:
        typer.echo(f"cut               {told}")
    if summary.quarantined:
        typer.echo(
            f"left out          {summary.quarantined:>7,} images, within what is tolerated; the report names them"
        )
    typer.echo(f"fingerprint       {summary.fingerprint}")
    for warning in findings.warnings:
        typer.echo(f"warning: {warning}", err=True)
    for problem in findings.problems:
        typer.echo(f"problem: {problem}", err=True)
