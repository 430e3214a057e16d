"""The Typer application and its one error rule: exit 0 done, 1 failed with one line, 2 the gate refused."""

import traceback
from typing import Annotated

import typer
from typer.exceptions import TyperException

from pipelines.cli import (
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
from serving.platform.errors import AidetectError

app = typer.Typer(
    name="aidetect",
    help="Real or AI-generated? Train, judge, register, deploy and ask the product photo detector.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (init, pipeline, runs, schedule, models, stages, detector, evidence, score, operations, data, settings):
    module.add_to(app)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    # read from the arguments in run_app: an error may come before this callback
    del debug


def run_app(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    try:
        code = typer.main.get_command(app).main(arguments, prog_name="aidetect", standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except TyperException as error:
        # a missing argument or unknown option: 1, because 2 means that the gate refused
        typer.echo(f"error: {error}; see: aidetect --help", err=True)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        return 130
    except Exception as error:  # noqa: BLE001 - the last place that can turn it into one line
        if "--debug" in arguments:
            traceback.print_exc()
        typer.echo(f"error: {one_line(error)}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def one_line(error: BaseException) -> str:
    """The error as one line; errors that are not ours also say their type and how to see more."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (AidetectError, OSError)):
        return text
    return f"{type(error).__name__}: {text} (run with --debug for the traceback)"
