"""The `aidetect` command line: verbs only; every heavy import waits until its verb is called."""

import os
import sys


def main() -> None:
    """Entry point of `aidetect`: run a verb; an error is one line on standard error, never a traceback."""
    # MLflow tells of each table that it makes, among what the verb has to say
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    from pipelines.cli.app import run_app

    sys.exit(run_app(sys.argv[1:]))


__all__ = ["main"]
