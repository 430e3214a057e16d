"""Verbs of the closed loop: smoke, drift, retrain."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, SummaryFile, TargetOption, configured
from pipelines.cli.places import require_address, say, tell_if_silent

if TYPE_CHECKING:
    from pipelines.retrain import Evidence, StartedRun
    from pipelines.runs import RunRecord
    from pipelines.settings.pipeline import PipelineConfig

Url = Annotated[str, typer.Option("--url", help="Server to ask, e.g. http://127.0.0.1:8080.")]
Prometheus = Annotated[str, typer.Option("--prometheus", help="Prometheus that watches all replicas.")]


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.command()(smoke)
    app.command()(drift)
    app.command()(retrain)


@configured()
def smoke(
    config: "PipelineConfig",
    url: Annotated[str, typer.Argument(help="Service to ask, e.g. http://127.0.0.1:8080.")],
    as_json: Json = False,
) -> None:
    """Replay the champion's golden images against a running service; exit 1 unless it answers as the champion does."""
    require_address(url)
    say(f"asking {url} about the golden images of the champion ...")
    from components.deploy.preview import champion, smoke_service

    version = champion(config.tracking_uri, config.tracking.model_name)
    tell_if_silent(url, config.deploy.smoke_timeout_s)
    report = smoke_service(url, version, config.deploy)
    if as_json:
        document = {"url": url, "version": version.version, **asdict(report)}
        typer.echo(json.dumps(document, indent=1))
        return
    typer.echo(f"{url} answers as version {version.version}: {report.sentence}")


@configured()
def drift(
    config: "PipelineConfig",
    url: Url = "",
    prometheus: Prometheus = "",
    as_json: Json = False,
) -> None:
    """Say whether traffic or scores have moved since the served model was trained."""
    evidence = _evidence(url, prometheus, config.retrain.feedback_path)
    if as_json:
        typer.echo(evidence.model_dump_json(indent=1))
        return
    typer.echo(f"drift: {evidence.drift_state}" + (f", {evidence.diagnosis}" if evidence.diagnosis else ""))
    age = "unknown" if evidence.champion_age_days is None else f"{evidence.champion_age_days:.1f} days"
    typer.echo(f"model version {evidence.model_version or 'unknown'}, age {age}, {evidence.new_labels} new labels")


@configured()
def retrain(
    config: "PipelineConfig",
    profile: str,
    overrides: list[str],
    url: Url = "",
    prometheus: Prometheus = "",
    on: Annotated[TargetOption, typer.Option(help="Where the pipeline runs.")] = "local",
    dispatch: Annotated[
        str,
        typer.Option(help="Start the training workflow of this OWNER/NAME on GitHub instead; wants GITHUB_TOKEN."),
    ] = "",
    sync: Annotated[bool, typer.Option("--sync", help="Wait for a run in the cloud to end.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Explain the decision; start and write nothing.")] = False,
    summary_file: SummaryFile = None,
    as_json: Json = False,
) -> None:
    """Start the pipeline if drift, age or new labels call for it, at most once per cause and cool-down."""
    from pipelines.cli.markdown import retrain_markdown, run_markdown, summary
    from pipelines.cli.progress import RunProgress
    from pipelines.config import github_access
    from pipelines.github import API
    from pipelines.github import dispatch as ask_github
    from pipelines.launch import Order, launch
    from pipelines.retrain import retrain as run
    from pipelines.retrain_state import Reason

    started: list[RunRecord] = []
    with summary(summary_file, "aidetect retrain") as told:
        evidence = _evidence(url, prometheus, config.retrain.feedback_path)
        with RunProgress(quiet=as_json) as progress:

            def start(reason: Reason, explanation: str) -> "StartedRun":
                if dispatch:
                    token, api = github_access()
                    return ask_github(dispatch, f"{reason}: {explanation}", token, api=api or API)
                started.append(
                    launch(config, Order(on, profile, tuple(overrides), f"{reason}: {explanation}"), progress, sync)
                )
                return started[-1]

            outcome = run(config.on_this_disk().retrain, evidence, start, dry_run)
        told.add(retrain_markdown(outcome))
        for record in started:
            told.add(run_markdown(record))
    if as_json:
        typer.echo(outcome.model_dump_json(indent=1))
    else:
        for line in outcome.decision.considered:
            typer.echo(f"  {line}")
        verb = "retrain" if outcome.decision.retrain else "do not retrain"
        typer.echo(f"{verb}: {outcome.decision.explanation}")
        if outcome.run_id:
            typer.echo(f"run {outcome.run_id}: {outcome.status}")
    raise typer.Exit({"failed": 1, "interrupted": 1, "refused": 2}.get(outcome.status, 0))


def _evidence(url: str, prometheus: str, feedback_path: str) -> "Evidence":
    from pipelines.config import api_key
    from pipelines.retrain import gather

    for asked in (url, prometheus):
        if asked:
            require_address(asked)
    return gather(url, prometheus, feedback_path, api_key())
