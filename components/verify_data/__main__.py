"""`python -m components.verify_data`: verify and pack a dataset outside a pipeline."""

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from components.verify_data.config import VerifyDataConfig
from components.verify_data.stage import verify_and_pack
from serving.platform.errors import StageError


def main(arguments: list[str] | None = None) -> int:
    """Run the stage alone; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m components.verify_data", description=__doc__)
    parser.add_argument("uri", help="folder, gs://BUCKET/PREFIX or hf://DATASET")
    parser.add_argument("--out", type=Path, required=True, help="dataset folder to write")
    parser.add_argument("--report", type=Path, help="HTML report to write (default: OUT/report.html)")
    parser.add_argument("--config", default="{}", help="JSON of the section verify_data, e.g. '{\"limit\": 1000}'")
    options = parser.parse_args(arguments)
    try:
        config = VerifyDataConfig.model_validate_json(options.config)
        report = options.report or options.out / "report.html"
        _, summary = verify_and_pack(options.uri, config, options.out, report)
    except (StageError, ValidationError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the command's own output
        return 1
    print(summary.model_dump_json(indent=1))  # noqa: T201 - the command's own output
    return 0


if __name__ == "__main__":
    sys.exit(main())
