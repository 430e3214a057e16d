"""One of several machines that train together: Vertex AI tells it its place, torchrun starts its processes."""

import sys
from pathlib import Path

from components.train.config import Node
from components.train.processes import launch, ordered, wanted
from serving.platform.errors import StageError, one_line


def main(folder: Path) -> int:
    """Run this machine's part of the order in a folder that all machines see; torchrun's status."""
    try:
        node = Node.from_environment()
        return launch(wanted(ordered(folder)), folder, node.options)
    except StageError as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        return 1


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
