"""Verbs about the configuration, this machine and the bill: config show, config schema, doctor, cost."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, configured

if TYPE_CHECKING:
    from pipelines.settings.pipeline import PipelineConfig

config_app = typer.Typer(help="The configuration in force.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.add_typer(config_app, name="config")
    app.command()(doctor)
    app.command()(cost)


@config_app.command("show")
@configured()
def show(
    config: "PipelineConfig",
    as_json: Json = False,
) -> None:
    """Print every key in force: file, profile, environment and --set applied."""
    document = config.model_dump(mode="json", by_alias=True)
    if as_json:
        typer.echo(json.dumps(document, indent=1))
        return
    import yaml

    typer.echo(yaml.safe_dump(document, sort_keys=False).rstrip())


@config_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a profile: every key with its type, bounds and default."""
    from pipelines.settings.pipeline import PipelineConfig

    typer.echo(json.dumps(PipelineConfig.model_json_schema(), indent=1))


@configured()
def doctor(
    config: "PipelineConfig",
    as_json: Json = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 on warnings too.")] = False,
) -> None:
    """Check that this machine and configuration can run the pipeline, and say how to mend what cannot."""
    from pipelines.config import UNKNOWN_REVISION, revision
    from pipelines.doctor import examine

    commit = revision()
    findings = examine(config, "" if commit == UNKNOWN_REVISION else commit)
    if as_json:
        typer.echo(json.dumps([finding.__dict__ for finding in findings], indent=1))
    else:
        marks = {"ok": "✓", "warning": "!", "error": "✗"}
        for finding in findings:
            typer.echo(f"{marks[finding.status]} {finding.subject}: {finding.message}")
    bad = {"error", "warning"} if strict else {"error"}
    raise typer.Exit(1 if any(finding.status in bad for finding in findings) else 0)


@configured("production")
def cost(
    config: "PipelineConfig",
    as_json: Json = False,
) -> None:
    """Estimate what a run on Vertex AI and a month of serving cost, by dated list prices."""
    from pipelines.cost import estimate

    found = estimate(config)
    if as_json:
        typer.echo(json.dumps(found.document(), indent=1))
        return
    from pipelines.cli.summary import print_estimate

    print_estimate(found)
