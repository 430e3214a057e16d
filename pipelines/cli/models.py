"""Verbs about registered models: models, deploy, promote, rollback."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Json, SummaryFile, configured, given
from pipelines.cli.places import require_registry, say

if TYPE_CHECKING:
    from components.artifacts.deployment import Deployment
    from components.artifacts.model_version import ModelVersion
    from pipelines.cli.markdown import Summary
    from pipelines.settings.pipeline import PipelineConfig


def add_to(app: typer.Typer) -> None:
    """Register this module's verbs."""
    app.command()(models)
    app.command()(deploy)
    app.command()(promote)
    app.command()(rollback)


@configured()
def models(
    config: "PipelineConfig",
    as_json: Json = False,
) -> None:
    """List the registered versions: aliases, figures, verdict."""
    from components.platform.registry import list_models

    # MLflow would make the database that it is asked to read
    if config.has_registry:
        require_registry(config)
    found = list_models(config.tracking_uri, config.tracking.model_name) if config.has_registry else []
    if as_json:
        typer.echo(json.dumps([asdict(version) for version in found], indent=1))
        return
    from pipelines.cli.summary import print_models

    print_models(found, config.tracking_uri)


Why = Annotated[str, typer.Option("--why", help="Kept in the promotion ledger.")]


@configured(absolute=True)
def deploy(
    config: "PipelineConfig",
    why: Why = "deployed by hand",
    image: Annotated[
        str, typer.Option(help="Serving image by digest, NAME@sha256:...; Cloud Run only.", callback=given)
    ] = "",
    tag: Annotated[str, typer.Option(help="With --no-traffic: tag of the preview.", callback=given)] = "",
    no_traffic: Annotated[
        bool, typer.Option("--no-traffic", help="Preview the image with the champion; promote nothing.")
    ] = False,
    remove_tag: Annotated[str, typer.Option(help="Only remove a preview's tag.", callback=given)] = "",
    summary_file: SummaryFile = None,
    as_json: Json = False,
) -> None:
    """Bring the challenger into service: smoke test, traffic, champion. With --image: the champion, on that image."""
    if bool(tag) != no_traffic:
        raise typer.BadParameter("--tag and --no-traffic belong together")
    if remove_tag and (tag or image):
        raise typer.BadParameter("--remove-tag goes alone")
    if tag and not image:
        raise typer.BadParameter("a preview needs --image")
    config = _with_image(config, image)
    if not remove_tag:
        say(f"deploying {config.tracking.model_name}: its smoke test, then traffic ...")
        require_registry(config)
    from pipelines.cli.markdown import summary

    with summary(summary_file, "aidetect deploy") as told:
        if remove_tag:
            _remove_tag(config, remove_tag, told, as_json)
        elif tag:
            _preview(config, tag, told, as_json)
        else:
            _deploy(config, why, told, as_json)


@configured(absolute=True)
def promote(
    config: "PipelineConfig",
    version: Annotated[str, typer.Argument(help="Version number, as `aidetect models` lists it.", callback=given)],
    why: Why = "promoted by hand",
    as_json: Json = False,
) -> None:
    """Make a registered version champion, after the same smoke test as a new one."""
    say(f"promoting version {version} of {config.tracking.model_name}: its smoke test, traffic, then the alias ...")
    from components.deploy.promotion import promote as run

    require_registry(config)
    config = config.with_serving_image()
    _show(run(config.tracking_uri, config.tracking.model_name, version, config.deploy, why), as_json)


@configured(absolute=True)
def rollback(
    config: "PipelineConfig",
    why: Why = "rolled back by hand",
    summary_file: SummaryFile = None,
    as_json: Json = False,
) -> None:
    """Bring back the version that served before the champion, after the same smoke test."""
    say(f"rolling {config.tracking.model_name} back: the version before, its smoke test, traffic, then the alias ...")
    from components.deploy.promotion import rollback as run
    from pipelines.cli.markdown import deployment_markdown, summary

    require_registry(config)
    config = config.with_serving_image()
    with summary(summary_file, "aidetect rollback") as told:
        done = run(config.tracking_uri, config.tracking.model_name, config.deploy, why)
        told.add(deployment_markdown(done))
    _show(done, as_json)


def _show(deployment: "Deployment", as_json: bool) -> None:
    if as_json:
        typer.echo(deployment.model_dump_json(indent=1))
        return
    before = f" (before: version {deployment.previous})" if deployment.previous else ""
    typer.echo(f"version {deployment.version} is champion{before}; {deployment.smoke}")
    if deployment.url:
        typer.echo(f"it answers at {deployment.url}")


def _with_image(config: "PipelineConfig", image: str) -> "PipelineConfig":
    config = config.with_serving_image()
    if not image:
        return config
    from pipelines.settings.places import is_pinned
    from serving.platform.errors import StageError

    if config.deploy.target != "cloud_run":
        raise StageError(f"--image needs deploy.target cloud_run; it is {config.deploy.target} here")
    if not is_pinned(image):
        raise StageError(f"--image {image}: a tag can move; give the image by digest, NAME@sha256:...")
    return config.model_copy(update={"deploy": config.deploy.model_copy(update={"image": image})})


def _deploy(config: "PipelineConfig", why: str, told: "Summary", as_json: bool) -> None:
    from components.deploy.promotion import Reason, deploy_version
    from pipelines.cli.markdown import deployment_markdown
    from serving.platform.account import user_name

    done = deploy_version(_candidate(config), config.deploy, Reason(user_name(), why, "deploy"))
    told.add(deployment_markdown(done))
    _show(done, as_json)


def _candidate(config: "PipelineConfig") -> "ModelVersion":
    """The challenger; for a new image the champion: a release of code brings no model that was held back."""
    from components.artifacts.model_version import CHALLENGER, CHAMPION
    from components.deploy.ledger import History, Ledger
    from components.platform.registry import Registry
    from serving.platform.errors import StageError

    registry = Registry(config.tracking_uri, config.tracking.model_name)
    challenger, champion = registry.aliased(CHALLENGER), registry.aliased(CHAMPION)
    history = History(Ledger(config.deploy.ledger_path).lines(), registry.name)
    spent = challenger in history.served | history.withdrawn and challenger != champion
    if config.deploy.image and champion is not None:
        return registry.describe(champion)
    if challenger is None:
        raise StageError(f"{registry.name} has no challenger in {config.tracking_uri}; make one with: aidetect run")
    if spent:
        raise StageError(
            f"the challenger, version {challenger} of {registry.name}, has served already and no longer does; "
            f"make a new one with: aidetect run, or bring it back with: aidetect promote {challenger}"
        )
    return registry.describe(challenger)


def _preview(config: "PipelineConfig", tag: str, told: "Summary", as_json: bool) -> None:
    from components.deploy.preview import champion, champion_by_ledger, deploy_preview
    from pipelines.cli.markdown import preview_markdown

    name, bundles = config.tracking.model_name, config.register_.bucket
    if config.tracking.uri or not (bundles and config.register_.vertex):
        version = champion(config.tracking_uri, name)
    else:
        version = champion_by_ledger(config.deploy, name, bundles)
    done = deploy_preview(version, config.deploy.for_previews(), tag)
    told.add(preview_markdown(done))
    if as_json:
        typer.echo(done.model_dump_json(indent=1))
    else:
        typer.echo(f"{done.url} serves version {done.version} without users; {done.smoke}")


def _remove_tag(config: "PipelineConfig", tag: str, told: "Summary", as_json: bool) -> None:
    from components.deploy.preview import remove_tag

    removed = remove_tag(config.deploy.for_previews(), tag)
    sentence = f"tag {tag} removed" if removed else f"no revision has the tag {tag}; nothing to do"
    told.add(sentence)
    typer.echo(json.dumps({"tag": tag, "removed": removed}) if as_json else sentence)
