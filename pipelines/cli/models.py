"""Verbs about registered models: models, deploy, promote, rollback."""

import json
from dataclasses import asdict

import typer

from pipelines.cli.options import DEFAULT_CONFIG, ConfigFile, Json, Overrides, Profile, configuration


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.command()(models)


def models(
    profile: Profile = "sample",
    overrides: Overrides = [],  # noqa: B006 - Typer reads the default, nothing writes to it
    config_file: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """List the registered versions: aliases, figures, verdict."""
    config = configuration(profile, overrides, config_file)
    from components.artifacts.registry import list_models

    found = list_models(config.tracking_uri, config.tracking.model_name)
    if as_json:
        typer.echo(json.dumps([asdict(version) for version in found], indent=1))
        return
    from pipelines.cli.summary import print_models

    print_models(found, config.tracking_uri)
