"""The Typer application and its one error rule: exit 0 done, 1 failed with one line, 2 the gate refused."""

import os
import sys
import traceback
from functools import cache
from typing import Annotated, Final

import typer
from typer.exceptions import TyperException

from pipelines.cli import (
    bootstrap,
    data,
    detector,
    evidence,
    init,
    models,
    operations,
    pipeline,
    runs,
    schedule,
    score,
    settings,
    stages,
)
from serving.platform.errors import AidetectError, system_error, system_line

DISTRIBUTION: Final = "ai-product-photo-detector"

app = typer.Typer(
    name="aidetect",
    help="Real or AI-generated? Train, judge, register, deploy and ask the product photo detector.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # plain help: rich and its Markdown take longer to load than all else together
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (
    init,
    bootstrap,
    pipeline,
    runs,
    schedule,
    models,
    stages,
    detector,
    evidence,
    score,
    operations,
    data,
    settings,
):
    module.add_to(app)


_parser: Final = cache(lambda: typer.main.get_command(app))
"""What reads the words of all verbs; a usage error needs it twice."""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        from pipelines.config import revision

        typer.echo(f"aidetect {version(DISTRIBUTION)} (revision {revision()})")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show version and revision.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    # read from the arguments in run_app: an error may come before this callback
    del debug, version


def run_app(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    try:
        code = _parser().main(arguments, prog_name="aidetect", standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except TyperException as error:
        return _usage(error, arguments)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        # who read the output has gone; nothing that is still to be flushed may complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last place that can turn it into one line
        if "--debug" in arguments:
            traceback.print_exc()
        typer.echo(f"error: {one_line(error)}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _usage(error: TyperException, arguments: list[str]) -> int:
    """Say what is wrong with the words of a command line; a group of verbs without one shows its help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError" and context is not None:
        typer.echo(context.get_help())
        return 0
    said = " ".join(error.format_message().replace("Value error, ", "").split()).rstrip(".")
    # a missing argument or unknown option: 1, because 2 means that the gate refused
    typer.echo(f"error: {said}; see: {context.command_path if context else _verb(arguments)} --help", err=True)
    return 1


def _verb(arguments: list[str]) -> str:
    """The verb that a command line names, as it is typed; the parser's own complaints do not tell it."""
    command, words = _parser(), ["aidetect"]
    for word in arguments:
        below = getattr(command, "commands", {}).get(word)
        if below is not None:
            command, words = below, [*words, word]
        elif not word.startswith("-"):
            break
    return " ".join(words)


def one_line(error: BaseException) -> str:
    """The error as one line; errors that are not ours also say their type and how to see more."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        return " ".join(f"{error.filename or ''}: {system_error(error)}".removeprefix(": ").split())
    if isinstance(error, (AidetectError, OSError)):
        return text
    said = f"{type(error).__name__}: {text}"
    # a library may tell of a full disk by an error of its own
    told = system_line(said)
    return told if told != said else f"{said} (run with --debug for the traceback)"
