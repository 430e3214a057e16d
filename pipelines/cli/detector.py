"""Verbs that ask the detector: predict, explain, serve."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, configured, given, one_photo, writable

if TYPE_CHECKING:
    from pipelines.settings.pipeline import PipelineConfig
    from serving.detector.conclusion import Policy
    from serving.detector.detector import Detector, Explanation, Judgement
    from serving.registry import ResolvedModel
    from serving.settings import DecisionSettings

Model = Annotated[
    str,
    typer.Option(
        "--model", help="Run id, bundle folder, gs:// or models:/ URI; default: the champion.", callback=given
    ),
]


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

    photos = list(photos_in(images))
    asked = _load(model, config)
    document: list[dict[str, object]] = []
    failed = False
    for photo, judged in judge_all(asked.detector, asked.policy, photos, usable_cores()):
        if not isinstance(judged, Judgement):
            failed = True
            refused = refusal_of(judged)
            document.append({"file": photo.name, "error": refused})
            typer.echo(f"error: {photo.name}: {refused['detail']}", err=True)
            continue
        verdict = judged.verdict
        document.append({"file": photo.name, **asked.answer(judged)})
        if not as_json:
            typer.echo(
                f"{photo.name}: {verdict.prediction}  P(ai_generated) = {verdict.probability:.4f}  "
                f"confidence {verdict.confidence}  (model {asked.version})"
            )
            _tell(judged)
    if as_json:
        typer.echo(json.dumps(document, indent=1))
    raise typer.Exit(1 if failed else 0)


@configured()
def explain(
    config: "PipelineConfig",
    image: Annotated[Path, typer.Argument(help="A JPEG, PNG, WebP, AVIF, HEIC or GIF file.", callback=one_photo)],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="PNG with the heatmap over the photo.", callback=writable)
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="HTML file that has the whole case: picture, heatmap, evidence.", callback=writable),
    ] = None,
    model: Model = "",
    side_px: Annotated[int, typer.Option(help="Longer side of the picture, in pixels.", min=32, max=4096)] = 512,
    as_json: Json = False,
) -> None:
    """Draw where the verdict on a photo came from (Grad-CAM), or write its whole case down."""
    from serving.platform.errors import AidetectError, ImageRefusedError

    if output is None and report is None:
        raise AidetectError("name a file for the heatmap (-o heat.png), for the case (--report case.html), or both")
    asked = _load(model, config)
    from pipelines.cli.photos import read_photo, writable_name

    try:
        explanation = asked.detector.explain(read_photo(image), side_px=side_px, policy=asked.policy)
    except ImageRefusedError as error:
        raise AidetectError(f"{image}: {error}") from error
    answer = asked.answer(explanation.judgement)
    if output is not None:
        output.write_bytes(explanation.drawn.overlay)
    if report is not None:
        report.write_text(_case(image, answer, explanation), encoding="utf-8")
    if as_json:
        document = {
            "file": writable_name(str(image)),
            **answer,
            "explained_class": explanation.explained_class,
            "heatmap": explanation.grid.tolist(),
            "picture": None if output is None else str(output),
            "report": None if report is None else str(report),
        }
        typer.echo(json.dumps(document, indent=1))
        return
    verdict, (rows, columns) = explanation.judgement.verdict, explanation.grid.shape
    name = writable_name(str(image))
    typer.echo(
        f"{name}: {verdict.prediction}  P(ai_generated) = {verdict.probability:.4f}  confidence {verdict.confidence}"
    )
    _tell(explanation.judgement)
    if output is not None:
        typer.echo(f"what spoke for {explanation.explained_class}, in {rows} x {columns} cells: {output}")
    if report is not None:
        typer.echo(f"the case: {report}")


def _case(image: Path, answer: dict[str, object], explanation: "Explanation") -> str:
    from datetime import UTC, datetime

    from serving.cases.report import Case
    from serving.cases.report import report as written
    from serving.cases.words import heat_in_words
    from serving.detector.heatmap import encode_png

    where = heat_in_words(explanation.grid, explanation.explained_class)
    picture = encode_png(explanation.drawn.photo)
    return written(Case(image.name, answer, picture, explanation.drawn.overlay, where, None, datetime.now(UTC)))


def decision_policy() -> "Policy":
    """How the server would decide under this environment: DECISION_REAL_BELOW, DECISION_AI_FROM, C2PA_TRUST_LISTS.

    Raises:
        ConfigError: a variable holds no such value.
        TrustListError: a list of signers cannot be read.
    """
    from serving.detector.conclusion import Policy
    from serving.provenance.credentials import Verifier

    found = decision_settings()
    return Policy(Verifier(found.trust_lists), found.decision_real_below, found.decision_ai_from)


def decision_settings() -> "DecisionSettings":
    """The variables themselves; raises `ConfigError` as above."""
    from pydantic import ValidationError

    from serving.platform.errors import ConfigError, plain
    from serving.settings import DecisionSettings

    try:
        return DecisionSettings()
    except ValidationError as error:
        wrong = error.errors()[0]
        name = ".".join(map(str, wrong["loc"])).upper()
        raise ConfigError(f"{name}: {plain(wrong)}") from error


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
    from pipelines.cli.places import of_run, require_registry

    if model:
        return of_run(config, model, "train", "bundle")
    require_registry(config)
    return f"models:/{config.tracking.model_name}@champion"


@dataclass(frozen=True, slots=True)
class _Asked:
    """The model a command asks, and how it decides here."""

    detector: "Detector"
    version: str
    policy: "Policy"
    record: dict[str, object]
    """By what it decides; in every answer."""

    def answer(self, judged: "Judgement") -> dict[str, object]:
        """The fields of the API's answer, as plain JSON values."""
        verdict = judged.verdict
        return {
            "prediction": verdict.prediction,
            "probability": verdict.probability,
            "confidence": verdict.confidence,
            "threshold": self.detector.rule.threshold,
            "model_version": self.version,
            **judged.conclusion.document(),
            "record": self.record,
        }


def _load(model: str, config: "PipelineConfig") -> _Asked:
    policy = decision_policy()
    from serving.cases.record import record_of
    from serving.detector.detector import Detector

    found = resolve_model(model, config)
    detector = Detector.load(found.folder, threads=1)
    return _Asked(detector, found.version, policy, record_of(detector, found.release, policy))


def resolve_model(model: str, config: "PipelineConfig") -> "ResolvedModel":
    """The bundle that `--model` names, or the champion's.

    Raises:
        ModelNotFoundError: there is none.
    """
    from serving.platform.errors import ModelNotFoundError
    from serving.registry import resolve

    uri = _uri(model, config)
    try:
        return resolve(uri, config.paths.workspace.resolve() / "models", config.tracking_uri)
    except ModelNotFoundError as error:
        hint = "" if model else "; train one with: aidetect run"
        raise ModelNotFoundError(f"{error}{hint}") from error
