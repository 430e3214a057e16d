"""The verb that needs no model: what files say of their own making."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Final

import typer

from pipelines.cli.options import Json

MOST_BYTES: Final = 256 * 2**20
"""Of a file that is read: a raw photo has a hundred megabytes."""
UNKNOWN: Final = "is no JPEG, PNG, WebP, AVIF, HEIC or GIF file, whose statements are read; name photo files"


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.command()(inspect)


def inspect(
    files: Annotated[list[Path], typer.Argument(help="Image files.")],
    trust_list: Annotated[
        list[Path],
        typer.Option("--trust-list", help="PEM certificates of C2PA signers to trust. Repeatable; none are shipped."),
    ] = [],  # noqa: B006 - Typer reads the default, nothing writes to it
    as_json: Json = False,
) -> None:
    """Say what each file states of its own making: IPTC, EXIF, generators' traces, Content Credentials.

    No pixel is judged and no network is used. A file that states nothing may be anything: statements are easily lost.
    """
    from pipelines.cli.photos import read_photo
    from serving.platform.errors import ImageRefusedError, system_error
    from serving.provenance.blocks import is_known
    from serving.provenance.credentials import Verifier
    from serving.provenance.inspect import inspect as read
    from serving.provenance.wording import sentence

    verifier = Verifier(trust_list)
    rows: list[dict[str, object]] = []
    failed = False
    for path in files:
        try:
            data = read_photo(path, MOST_BYTES)
            if not is_known(data):
                raise ImageRefusedError("unsupported_type", UNKNOWN)
        except (OSError, ImageRefusedError) as error:
            failed = True
            said = str(error) if isinstance(error, ImageRefusedError) else system_error(error)
            rows.append({"file": str(path), "error": said})
            if not as_json:
                typer.echo(f"error: {path}: {said}", err=True)
            continue
        found = read(data, verifier)
        row: dict[str, object] = {
            "file": str(path),
            "image_sha256": hashlib.sha256(data).hexdigest(),
            "provenance": found.document(),
        }
        rows.append(row)
        if not as_json:
            typer.echo(f"{path}: {sentence(found)}")
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
    raise typer.Exit(1 if failed else 0)
