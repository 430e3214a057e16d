"""Options that several verbs share, and how they become a configuration."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.settings.names import TargetName

if TYPE_CHECKING:
    from pipelines.settings.pipeline import PipelineConfig

TargetOption = TargetName
Profile = Annotated[str, typer.Option("--profile", "-p", help="Profile in pipeline_config.yaml.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. train.epochs=15. Repeatable.")
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="The configuration file; default: pipeline_config.yaml here or in a folder above."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
SummaryFile = Annotated[
    Path | None, typer.Option("--summary", metavar="FILE", help="Append what happened to this file, as Markdown.")
]
Verb = Callable[..., None]


def configured(profile: str = "sample", absolute: bool = False) -> Callable[[Verb], Verb]:
    """Give a verb --profile, --set and --config; its first parameter is the configuration that they make.

    Args:
        profile: default of --profile; empty: the run's own, which the verb looks up under the paths of `sample`. A verb
            with a parameter `profile`, `overrides` or `config_file` is told that too.
        absolute: paths made absolute, for verbs that run a stage on this disk.
    """

    def give(verb: Verb) -> Verb:
        own = inspect.signature(verb, eval_str=False).parameters

        def run(**options: Any) -> None:
            given = {name: options[name] for name in shared}
            config = configuration(given["profile"] or "sample", given["overrides"], given["config_file"])
            told = {name: value for name, value in options.items() if name in own}
            verb(config.on_this_disk() if absolute else config, **told)

        shared = {"profile": (Profile, profile), "overrides": (Overrides, []), "config_file": (ConfigFile, None)}
        parameters = [
            *(own[name] for name in list(own)[1:] if name not in shared),
            *(_parameter(name, kind, default) for name, (kind, default) in shared.items()),
        ]
        # keyword-only lets an option without a default follow one that has one
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # what inspect, and so Typer, looks at
            [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
        )
        run.__annotations__ = {}
        run.__name__, run.__doc__ = verb.__name__, verb.__doc__
        return run

    return give


def configuration(profile: str, overrides: list[str], file: Path | None) -> "PipelineConfig":
    """The configuration in force for a verb."""
    from pipelines.config import load_config

    return load_config(profile, overrides, file)


def given(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """Refuse an option that is there and empty, as a variable of the shell leaves it that was never set."""
    source = context.get_parameter_source(parameter.name or "")
    if not value and source is not None and source.name == "COMMANDLINE":
        raise typer.BadParameter("an empty text; give a value, or leave the option out")
    return value


def one_photo(path: Path) -> Path:
    """Refuse what cannot be one photo, before a model is loaded for it."""
    if path.is_dir():
        raise typer.BadParameter(
            f"{path} is a folder; name one photo in it, or judge them all: aidetect predict {path}"
        )
    if not path.exists():
        raise typer.BadParameter(f"there is no file {path}; check the path")
    return path


def writable(path: Path | None) -> Path | None:
    """Refuse a file that cannot be written, as a verb is called and not after its work."""
    if path is None:
        return None
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"{path}: there is no folder {path.parent}; make it first: mkdir -p {path.parent}")
    return path


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
