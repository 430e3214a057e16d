"""Prints the requirements of extras of pyproject.toml, so that images install libraries apart from our code.

`python requirements.py serve` prints the base dependencies and those of the extra `serve`; `pipeline:kfp` takes one
requirement of an extra. torch and torchvision are left out: every image chooses its own build of them.
"""

import re
import sys
import tomllib
from pathlib import Path

CHOSEN_BY_THE_IMAGE = {"torch", "torchvision"}


def name_of(requirement: str) -> str:
    """The bare distribution name of `name[extra]>=1 ; marker`."""
    return re.split(r"[\s\[<>=!~;@]", requirement, maxsplit=1)[0].lower()


def requirements(pyproject: Path, wanted: list[str]) -> list[str]:
    """Base dependencies and those of each `extra` or `extra:distribution` wanted, sorted, without torch.

    Raises:
        SystemExit: an extra or a distribution that pyproject.toml does not have.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    found = set(project["dependencies"])
    for item in wanted:
        extra, _, one = item.partition(":")
        lines = [line for line in extras.get(extra, []) if not one or name_of(line) == one]
        if not lines:
            raise SystemExit(f"requirements.py: {pyproject} has no {item!r}; extras: {', '.join(sorted(extras))}")
        found.update(lines)
    return sorted(line for line in found if name_of(line) not in CHOSEN_BY_THE_IMAGE)


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(Path("pyproject.toml"), sys.argv[1:])) + "\n")
