"""Options that several verbs share, and how they become a configuration."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.settings.names import TargetName

if TYPE_CHECKING:
    from pipelines.settings.pipeline import PipelineConfig

TargetOption = TargetName
Profile = Annotated[str, typer.Option("--profile", "-p", help="Profile in pipeline_config.yaml.")]
Overrides = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. train.epochs=15. Repeatable.")
]
ConfigFile = Annotated[Path, typer.Option("--config", help="The configuration file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
SummaryFile = Annotated[
    Path | None, typer.Option("--summary", metavar="FILE", help="Append what happened to this file, as Markdown.")
]

DEFAULT_CONFIG = Path("pipeline_config.yaml")


def configuration(profile: str, overrides: list[str], file: Path, data: str = "") -> "PipelineConfig":
    """The configuration in force for a verb."""
    from pipelines.config import load_config

    extra = [f"data.uri={data}"] if data else []
    return load_config(profile, [*overrides, *extra], file)


def local_configuration(profile: str, overrides: list[str], file: Path) -> "PipelineConfig":
    """The same with paths made absolute, for verbs that run a stage on this disk."""
    return configuration(profile, overrides, file).on_this_disk()
