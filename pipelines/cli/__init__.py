"""The `aidetect` command line: verbs only; every heavy import waits until its verb is called."""

import sys


def main() -> None:
    """Entry point of `aidetect`: run a verb; an error is one line on standard error, never a traceback."""
    from pipelines.cli.app import run_app

    sys.exit(run_app(sys.argv[1:]))


__all__ = ["main"]
