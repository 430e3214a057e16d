"""`aidetect bootstrap`: makes what a new project lacks, after one question."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from pipelines.cli.options import ConfigFile
from serving.platform.errors import BootstrapError

if TYPE_CHECKING:
    from pipelines.bootstrap_steps import Step

TERRAFORM: Final = Path("infra/terraform/environments")


def add_to(app: typer.Typer) -> None:
    """Register this module's verb."""
    app.command()(bootstrap)


def bootstrap(
    environment: Annotated[Literal["dev", "prod"], typer.Option(help="Terraform environment.")] = "prod",
    github_token_file: Annotated[
        Path | None,
        typer.Option(help="File with a token of GitHub that may start workflows: drift alarms then start training."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Make what a new Google Cloud project lacks, after `aidetect init`: state, APIs, all of Terraform, images, MLflow.

    Looks at what stands, prints what is missing with its commands and asks once. Run again it goes on where it stopped,
    and changes nothing where all stands.
    """
    wanted = _steps(environment, github_token_file, config_file)
    missing = _plan(wanted)
    if not missing:
        typer.echo("nothing to make")
    elif not dry_run:
        if not yes and not typer.confirm("Make what is missing? The database and the service cost money from then on"):
            raise typer.Exit(1)
        for step in wanted:
            # looked at again: an earlier step may have made it, or made it stale
            if not step.stands():
                typer.echo(f"making {step.what}")
                step.make()
        typer.echo("all of it stands")
    if not dry_run:
        typer.echo("next: aidetect doctor --profile production, then")
        typer.echo("      aidetect run --on vertex --profile production --sync, and where its gate has passed")
        typer.echo("      aidetect deploy --profile production")


def _steps(environment: str, github_token_file: Path | None, config_file: Path | None) -> "list[Step]":
    from pipelines.bootstrap import Profile, Programs, missing_programs, read_place
    from pipelines.bootstrap_steps import steps
    from pipelines.config import find_config

    folder = TERRAFORM / environment
    if not folder.is_dir():
        raise BootstrapError(f"{folder}: no such folder; run from the project's folder")
    if absent := missing_programs():
        raise BootstrapError(f"not installed: {', '.join(absent)}; see docs/DEPLOYMENT.md, “Google Cloud”")
    if github_token_file is not None and not github_token_file.is_file():
        raise BootstrapError(f"--github-token-file {github_token_file}: no such file")
    if github_token_file is not None and environment == "dev":
        raise BootstrapError("--github-token-file: drift alarms start training in prod alone; drop --environment dev")
    profile = Profile(config_file or find_config(), folder / "terraform.tfvars", environment == "prod")
    return steps(read_place(folder), Programs(typer.echo), profile, github_token_file)


def _plan(wanted: "list[Step]") -> int:
    """Print what stands and what is missing; how much is."""
    missing = 0
    for number, step in enumerate(wanted, 1):
        stands = step.stands()
        missing += not stands
        typer.echo(f"{number:>2}. {'stands ' if stands else 'missing'}  {step.what}")
        for command in () if stands else step.commands:
            typer.echo(f"                {command}")
    return missing
