"""Verbs about registered models: models, deploy, promote, rollback."""

import getpass
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import (
    DEFAULT_CONFIG,
    ConfigFile,
    Json,
    Overrides,
    Profile,
    configuration,
    local_configuration,
)

if TYPE_CHECKING:
    from components.artifacts.deployment import Deployment


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.command()(models)
    app.command()(deploy)
    app.command()(promote)
    app.command()(rollback)


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


Why = Annotated[str, typer.Option("--why", help="Kept in the promotion ledger.")]


def deploy(
    why: Why = "deployed by hand",
    profile: Profile = "sample",
    overrides: Overrides = [],  # noqa: B006
    config_file: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Bring the challenger into service: smoke test, traffic, champion."""
    config = local_configuration(profile, overrides, config_file)
    from components.artifacts.failure import StageError
    from components.artifacts.model_version import CHALLENGER
    from components.artifacts.registry import Registry
    from components.deploy.promotion import Reason, deploy_version

    registry = Registry(config.tracking_uri, config.tracking.model_name)
    version = registry.aliased(CHALLENGER)
    if version is None:
        raise StageError(f"{registry.name} has no challenger in {config.tracking_uri}; make one with: aidetect run")
    reason = Reason(getpass.getuser(), why, "deploy")
    _show(deploy_version(registry.describe(version), config.deploy, reason), as_json)


def promote(
    version: Annotated[str, typer.Argument(help="Version number, as `aidetect models` lists it.")],
    why: Why = "promoted by hand",
    profile: Profile = "sample",
    overrides: Overrides = [],  # noqa: B006
    config_file: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Make a registered version champion, after the same smoke test as a new one."""
    config = local_configuration(profile, overrides, config_file)
    from components.deploy.promotion import promote as run

    _show(run(config.tracking_uri, config.tracking.model_name, version, config.deploy, why), as_json)


def rollback(
    why: Why = "rolled back by hand",
    profile: Profile = "sample",
    overrides: Overrides = [],  # noqa: B006
    config_file: ConfigFile = DEFAULT_CONFIG,
    as_json: Json = False,
) -> None:
    """Bring back the version that served before the champion, after the same smoke test."""
    config = local_configuration(profile, overrides, config_file)
    from components.deploy.promotion import rollback as run

    _show(run(config.tracking_uri, config.tracking.model_name, config.deploy, why), as_json)


def _show(deployment: "Deployment", as_json: bool) -> None:
    if as_json:
        typer.echo(deployment.model_dump_json(indent=1))
        return
    before = f" (before: version {deployment.previous})" if deployment.previous else ""
    typer.echo(f"version {deployment.version} is champion{before}; {deployment.smoke}")
    if deployment.url:
        typer.echo(f"it answers at {deployment.url}")
