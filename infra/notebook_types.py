"""`python -m infra.notebook_types`: the type checker on the notebook, which calls what others rename and move."""

import json
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from mypy import api

ROOT: Final = Path(__file__).resolve().parents[1]
NOTEBOOK: Final = ROOT / "notebooks" / "train_colab.ipynb"
PREAMBLE: Final = "from IPython.display import display"
"""What a kernel gives without being asked."""
_MAGIC: Final = re.compile(r"^(\s*)[!%].*")


def code(notebook: Path) -> tuple[list[str], list[str]]:
    """The lines of its code cells as one module's, without commands of the shell, and where each of them stands."""
    lines, places = [PREAMBLE], [notebook.name]
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        for row, line in enumerate("".join(cell["source"]).splitlines(), 1):
            lines.append(_MAGIC.sub(r"\1pass", line))
            places.append(f"{notebook.name}, code cell {number}, line {row}")
    return lines, places


def check(notebook: Path) -> list[str]:
    """What the type checker finds, each with its cell and line."""
    lines, places = code(notebook)
    with TemporaryDirectory() as folder:
        module = Path(folder) / "notebook.py"
        module.write_text("\n".join(lines) + "\n")
        # no other option than those of the whole: another one would make it check the whole anew
        said, failed, _ = api.run(["--no-error-summary", str(module)])
    if failed:
        return [failed.strip()]
    return [
        re.sub(r"^.*notebook\.py:(\d+)", lambda found: places[int(found[1]) - 1], line) for line in said.splitlines()
    ]


if __name__ == "__main__":
    problems = check(NOTEBOOK)
    sys.stdout.write("".join(f"{problem}\n" for problem in problems))
    sys.exit(bool(problems))
