"""`python -m components.register`: register a bundle by hand."""

import argparse
import sys
from pathlib import Path

from components.artifacts.context import RunContext
from components.register.config import RegisterConfig
from components.register.stage import register
from serving.platform.errors import StageError


def main() -> int:
    """Parse the command line, register, print the version's address."""
    parser = argparse.ArgumentParser(
        prog="python -m components.register", description="Register a bundle that passed the gate as a new version."
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder made by train")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder made by evaluate")
    parser.add_argument("--verdict", type=Path, required=True, help="folder made by quality_gate")
    parser.add_argument("--output", type=Path, required=True, help="folder to write model_version.json into")
    parser.add_argument("--config", default="{}", help="JSON of the section `register`")
    parser.add_argument("--context", required=True, help="JSON of the run context: run_id, tracking_uri, ...")
    options = parser.parse_args()
    try:
        version = register(
            options.bundle,
            options.evaluation,
            options.verdict,
            RegisterConfig.model_validate_json(options.config),
            RunContext.model_validate_json(options.context),
            options.output,
        )
    except (StageError, ValueError) as error:
        print(str(error), file=sys.stderr)  # noqa: T201 - a command line
        return 1
    print(version.uri)  # noqa: T201 - a command line
    return 0


if __name__ == "__main__":
    sys.exit(main())
