"""`python -m components.deploy`: deploy a registered version by hand."""

import argparse
import sys
from pathlib import Path

from components.artifacts.context import RunContext
from components.deploy.config import DeployConfig
from components.deploy.stage import deploy
from serving.platform.errors import StageError


def main() -> int:
    """Parse the command line, deploy, print what serves."""
    parser = argparse.ArgumentParser(
        prog="python -m components.deploy", description="Smoke-test a registered version and make it champion."
    )
    parser.add_argument("--model-version", type=Path, required=True, help="folder made by register")
    parser.add_argument("--output", type=Path, required=True, help="folder to write deployment.json into")
    parser.add_argument("--config", default="{}", help="JSON of the section `deploy`")
    parser.add_argument("--context", required=True, help="JSON of the run context: run_id, tracking_uri, ...")
    options = parser.parse_args()
    try:
        done = deploy(
            options.model_version,
            DeployConfig.model_validate_json(options.config),
            RunContext.model_validate_json(options.context),
            options.output,
        )
    except (StageError, ValueError) as error:
        print(str(error), file=sys.stderr)  # noqa: T201 - a command line
        return 1
    print(f"{done.name} version {done.version} is champion ({done.target}): {done.smoke}")  # noqa: T201 - a command line
    return 0


if __name__ == "__main__":
    sys.exit(main())
