"""Verbs that ask the detector: predict, explain, serve."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pipelines.cli.options import Json, configured, writable

if TYPE_CHECKING:
    from pipelines.settings.pipeline import PipelineConfig
    from serving.detector.detector import Detector, Judgement
    from serving.registry import ResolvedModel

Model = Annotated[
    str, typer.Option("--model", help="Run id, bundle folder, gs:// or models:/ URI; default: the champion.")
]
_NO_MODEL: Final = "no model yet: nothing was registered in {where}; train one with: aidetect run"


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.command()(predict)
    app.command()(explain)
    app.command()(serve)


@configured()
def predict(
    config: "PipelineConfig",
    images: Annotated[list[Path], typer.Argument(help="JPEG, PNG, WebP, AVIF, HEIC or GIF files, or folders of them.")],
    model: Model = "",
    as_json: Json = False,
) -> None:
    """Say of each photo whether it is real or AI-generated; of a folder, of every file in it."""
    from pipelines.cli.photos import judge_all, photos_in, refusal_of
    from serving.detector.detector import Judgement
    from serving.platform.cores import usable_cores

    photos = list(photos_in(images, config.catalogue))
    detector, version = _load(model, config)
    document: list[dict[str, object]] = []
    failed = False
    for photo, judged in judge_all(detector, photos, usable_cores()):
        if not isinstance(judged, Judgement):
            failed = True
            refused = refusal_of(judged)
            document.append({"file": photo.name, "error": refused})
            typer.echo(f"error: {photo.name}: {refused['detail']}", err=True)
            continue
        verdict = judged.verdict
        document.append(
            {
                "file": photo.name,
                "prediction": verdict.prediction,
                "probability": verdict.probability,
                "confidence": verdict.confidence,
                "threshold": detector.rule.threshold,
                "model_version": version,
                **judged.conclusion.document(),
            }
        )
        if not as_json:
            typer.echo(
                f"{photo.name}: {verdict.prediction}  P(ai_generated) = {verdict.probability:.4f}  "
                f"confidence {verdict.confidence}  (model {version})"
            )
            _tell(judged)
    if as_json:
        typer.echo(json.dumps(document, indent=1))
    raise typer.Exit(1 if failed else 0)


@configured()
def explain(
    config: "PipelineConfig",
    image: Annotated[
        Path, typer.Argument(help="A JPEG, PNG, WebP, AVIF, HEIC or GIF file.", exists=True, dir_okay=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="PNG with the heatmap over the photo.", callback=writable)
    ],
    model: Model = "",
    side_px: Annotated[int, typer.Option(help="Longer side of the picture, in pixels.", min=32, max=4096)] = 512,
    as_json: Json = False,
) -> None:
    """Draw where the verdict on a photo came from (Grad-CAM)."""
    detector, version = _load(model, config)
    from pipelines.cli.photos import read_photo
    from serving.platform.errors import AidetectError, ImageRefusedError

    try:
        explanation = detector.explain(read_photo(image), side_px=side_px)
    except ImageRefusedError as error:
        raise AidetectError(f"{image}: {error}") from error
    output.write_bytes(explanation.overlay_png)
    verdict = explanation.judgement.verdict
    if as_json:
        document = {
            "file": str(image),
            "prediction": verdict.prediction,
            "probability": verdict.probability,
            "confidence": verdict.confidence,
            "explained_class": explanation.explained_class,
            "heatmap": explanation.grid.tolist(),
            "picture": str(output),
            "model_version": version,
            **explanation.judgement.conclusion.document(),
        }
        typer.echo(json.dumps(document, indent=1))
        return
    typer.echo(
        f"{image}: {verdict.prediction}  P(ai_generated) = {verdict.probability:.4f}  confidence {verdict.confidence}"
    )
    _tell(explanation.judgement)
    typer.echo(f"what spoke for {explanation.explained_class}: {output}")


def _tell(judged: "Judgement") -> None:
    found = judged.conclusion
    typer.echo(f"  decision {found.decision}: {' '.join(reason.sentence for reason in found.reasons)}")


@configured()
def serve(
    config: "PipelineConfig",
    model: Model = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8080,
) -> None:
    """Serve the champion (or another model) over HTTP until interrupted."""
    from pipelines.config import child_environment

    uri = _uri(model, config)
    if sys.stderr.isatty():
        where = f"[{host}]" if ":" in host else host
        address = f"http://{where}:{port}" if port else f"a free port of {where}"
        typer.echo(f"serving {uri} on {address} (what it can do: /docs); stop it with Ctrl-C", err=True)
    environment = child_environment(
        MODEL_URI=uri,
        MLFLOW_TRACKING_URI=config.tracking_uri,
        MODEL_CACHE_DIR=str(config.paths.workspace.resolve() / "models"),
        HOST=host,
        PORT=str(port),
    )
    # replaces this process: signals reach the server itself, nothing stands between
    os.execve(sys.executable, [sys.executable, "-m", "serving"], environment)  # noqa: S606 - no shell is wanted


def _uri(model: str, config: "PipelineConfig") -> str:
    """What `--model` names: a run's bundle, any URI, or the champion; MLflow would make the database it is asked."""
    from pipelines.cli.places import of_run
    from serving.platform.errors import ModelNotFoundError

    if model:
        return of_run(config, model, "train", "bundle")
    if not config.has_registry:
        raise ModelNotFoundError(_NO_MODEL.format(where=config.tracking_uri))
    return f"models:/{config.tracking.model_name}@champion"


def _load(model: str, config: "PipelineConfig") -> "tuple[Detector, str]":
    from serving.detector.detector import Detector

    found = resolve_model(model, config)
    return Detector.load(found.folder, threads=1), found.version


def resolve_model(model: str, config: "PipelineConfig") -> "ResolvedModel":
    """The bundle that `--model` names, or the champion's.

    Raises:
        ModelNotFoundError: there is none.
    """
    from serving.platform.errors import ModelNotFoundError
    from serving.registry import resolve

    try:
        return resolve(_uri(model, config), config.paths.workspace.resolve() / "models", config.tracking_uri)
    except ModelNotFoundError as error:
        hint = "" if model else "; train one with: aidetect run"
        raise ModelNotFoundError(f"{error}{hint}") from error
