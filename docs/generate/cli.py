"""Reference of the command line, as Typer documents it."""

import re

import typer
import typer.cli

from docs.generate.markdown import NOTE
from pipelines.cli.app import app

_USAGE = re.compile(r"\*\*Usage\*\*:\n\n```console\n\$ (.*?)\n```", re.DOTALL)


def page() -> str:
    """`reference/cli.md`."""
    command = typer.main.get_command(app)
    text = typer.cli.get_docs_for_click(obj=command, ctx=typer.Context(command), name="aidetect", title="Command line")
    # a usage line is no command to run
    text = _USAGE.sub(r"**Usage**: `\1`", text)
    head, _, body = text.partition("\n")
    rule = (
        "Exit status: 0 done, 1 failed, with one line on standard error that names the problem and the fix, 2 the "
        "quality gate refused. `--debug` before the verb shows the traceback. Colours and bars are left out when the "
        "output is no terminal."
    )
    return f"{NOTE.format(source='pipelines/cli')}\n\n{head}\n\n{rule}\n{body.rstrip()}\n"
