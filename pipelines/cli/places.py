"""What a user may call a run's artifact: its run's id, or the run's folder."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pipelines.settings.names import Stage
    from pipelines.settings.pipeline import PipelineConfig

_NO_MODEL: Final = "no model yet: nothing was registered in {where}; train one with: aidetect run"
_ANSWER_S: Final = 10.0
_RUN_ID: Final = re.compile(r"\d{8}-\d{6}(-\d+)?|last")


def require_registry(config: "PipelineConfig") -> None:
    """Refuse a verb that needs a registered model where none can be had.

    Of a database that is not there, MLflow would make one; a server that is not there it asks for minutes.

    Raises:
        ModelNotFoundError: says where was looked.
    """
    from serving.platform.errors import ModelNotFoundError, one_line

    if not config.has_registry:
        raise ModelNotFoundError(_NO_MODEL.format(where=config.tracking_uri))
    if config.tracking_uri.startswith(("http://", "https://")):
        import httpx

        try:
            # whatever it answers, it is there; what it then refuses MLflow says
            with httpx.stream("GET", f"{config.tracking_uri.rstrip('/')}/health", timeout=_ANSWER_S):
                pass
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ModelNotFoundError(
                f"{config.tracking_uri}: no answer ({one_line(error)}); is the MLflow server running? (tracking.uri)"
            ) from error


def say(what: str) -> None:
    """Tell a person at a terminal what is under way before it takes seconds; a script is told of the end alone."""
    import sys

    import typer

    if sys.stderr.isatty():
        typer.echo(what, err=True)


def require_address(url: str) -> None:
    """Refuse what is no address of a service.

    Raises:
        ConfigError: says what one looks like.
    """
    from serving.platform.errors import ConfigError

    if not re.match(r"https?://[^/]", url):
        raise ConfigError(f"{url}: no address of a service; give it as http://HOST:PORT or https://HOST")


def tell_if_silent(url: str, waits_s: float) -> None:
    """Say, before a service is asked again and again for `waits_s` seconds, that it does not answer yet."""
    import httpx
    import typer

    from serving.platform.errors import one_line

    try:
        with httpx.stream("GET", f"{url.rstrip('/')}/healthz", timeout=_ANSWER_S):
            pass
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        typer.echo(f"{url}: no answer ({one_line(error)}); asking again for up to {waits_s:g} s", err=True)


def require_data(uri: str) -> None:
    """Refuse what cannot be images before a run is started for them; what is in a bucket or hub, the run will see.

    Raises:
        StageError: names the place, and what to give instead.
    """
    from serving.platform.errors import StageError

    scheme, is_remote, rest = uri.partition("://")
    path = Path(uri).expanduser()
    if is_remote:
        known = scheme in ("gs", "hf")
        problem = f"nothing here reads {scheme}://" if not known else "" if rest.strip("/") else "names no images"
    elif not path.exists():
        problem = "no such folder or table"
    elif path.is_dir():
        problem = "" if any(path.iterdir()) else "an empty folder"
    else:
        from components.verify_data.tables import TABLES

        problem = "" if path.suffix.lower() in TABLES else f"is no table ({', '.join(TABLES)})"
    if problem:
        raise StageError(f"{uri}: {problem}; give the folder of the images, gs://BUCKET/PREFIX or hf://NAME")


def of_run(config: "PipelineConfig", place: str, stage: "Stage", artifact: str) -> str:
    """Where an artifact lies: of the run that `place` names, by id or folder, or else `place` itself.

    Raises:
        RunError: there is no such run, or it has no such artifact on this disk.
    """
    from pipelines.runs import RUN_JSON, find_run
    from serving.platform.errors import RunError

    path = Path(place)
    is_folder = "://" not in place and (path / RUN_JSON).is_file()
    if not is_folder and (path.exists() or not _RUN_ID.fullmatch(place)):
        return place
    workspace = path.resolve().parent.parent if is_folder else config.paths.workspace
    record = find_run(workspace, path.resolve().name)
    if record.pipeline != "training":
        raise RunError(f"run {record.run_id} scored a catalogue: it made no {artifact}")
    found = record.output(stage, artifact)
    if not record.stage(stage).output_dir or not found.exists():
        raise RunError(f"run {record.run_id} ({record.status}) has no {artifact} on this disk: {stage} did not finish")
    return str(found)
