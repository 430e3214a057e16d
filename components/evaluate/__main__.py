"""`python -m components.evaluate`: score a bundle by hand."""

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from components.artifacts.context import RunContext
from components.evaluate.config import EvaluateConfig
from components.evaluate.stage import evaluate, flat_metrics
from serving.platform.errors import StageError, one_line


def main() -> int:
    """Parse the command line, evaluate, print the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m components.evaluate",
        description="Score a bundle on the test split, corrupted copies of it, unseen generators, and a champion.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder made by train")
    parser.add_argument("--dataset", type=Path, required=True, help="folder made by verify_data")
    parser.add_argument("--output", type=Path, required=True, help="folder to write evaluation.json and plots to")
    parser.add_argument("--report", type=Path, help="HTML file to write (default: report.html in --output)")
    parser.add_argument("--champion", help="bundle folder or models:/ URI to compare with; wins over --config")
    parser.add_argument("--config", default="{}", help="JSON of the section `evaluate`")
    parser.add_argument("--context", default='{"run_id": "by-hand"}', help="JSON of the run context")
    options = parser.parse_args()
    try:
        config = EvaluateConfig.model_validate_json(options.config)
        if options.champion is not None:
            config = EvaluateConfig.model_validate(config.model_dump() | {"champion_uri": options.champion})
        found = evaluate(
            options.bundle,
            options.dataset,
            config,
            RunContext.model_validate_json(options.context),
            options.output,
            options.report or options.output / "report.html",
        )
    except ValidationError as error:
        print(f"--config or --context: {one_line(error)}", file=sys.stderr)  # noqa: T201 - a command line
        return 1
    except StageError as error:
        print(str(error), file=sys.stderr)  # noqa: T201 - a command line
        return 1
    for name, value in flat_metrics(found).items():
        print(f"{name} {value:.4f}")  # noqa: T201 - a command line
    return 0


if __name__ == "__main__":
    sys.exit(main())
