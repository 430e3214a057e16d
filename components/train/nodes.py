"""A machine of a training job: Vertex AI tells it its place where there are several; torchrun starts its processes."""

import sys
from pathlib import Path
from typing import Final

from components.train.config import Node
from components.train.processes import ALONE, launch, ordered, wanted
from serving.platform.errors import StageError, one_line

ONE: Final = "--one"
"""Said to a machine that trains alone."""


def main(folder: Path, one: bool) -> int:
    """Run this machine's part of the order in a folder that all machines see; torchrun's status.

    Args:
        folder: of the order.
        one: whether there is no other machine to meet.
    """
    try:
        options = ALONE if one else Node.from_environment().options
        return launch(wanted(ordered(folder)), folder, options)
    except StageError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), ONE in sys.argv[2:]))
