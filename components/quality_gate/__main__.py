"""`python -m components.quality_gate`: judge an evaluation by hand."""

import argparse
import sys
from pathlib import Path

from pydantic import ValidationError

from components.quality_gate.config import GateConfig
from components.quality_gate.stage import judge_folder
from components.quality_gate.wording import markdown
from serving.platform.errors import StageError, one_line

REFUSED_EXIT_CODE = 2


def main() -> int:
    """Parse the command line, judge, print the verdict; exit 0 passed, 2 refused, 1 failed."""
    parser = argparse.ArgumentParser(
        prog="python -m components.quality_gate",
        description="Hold an evaluation against a policy; exit 0 passed, 2 refused, 1 failed.",
    )
    parser.add_argument("evaluation", type=Path, help="folder made by evaluate")
    parser.add_argument("--config", default="{}", help="JSON of the section `gate`")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    options = parser.parse_args()
    try:
        verdict = judge_folder(options.evaluation, GateConfig.model_validate_json(options.config))
    except ValidationError as error:
        print(f"--config: {one_line(error)}", file=sys.stderr)  # noqa: T201 - a command line
        return 1
    except StageError as error:
        print(str(error), file=sys.stderr)  # noqa: T201 - a command line
        return 1
    print(verdict.model_dump_json(indent=1) if options.json else markdown(verdict))  # noqa: T201 - a command line
    return 0 if verdict.passed else REFUSED_EXIT_CODE


if __name__ == "__main__":
    sys.exit(main())
