"""`python -m tests.mutate`: small changes to what decides; those that no quick test notices stand in MUTANTS.md.

mutmut makes the changes and runs the tests (`[tool.mutmut]` in pyproject.toml) in `mutants/`, where it goes on after
an interruption. This prints what survived; 1 where a survivor has no reason in the table, or a reason has no survivor.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REASONS = Path(__file__).with_name("MUTANTS.md")
SURVIVED, NOT_RUN = (0,), (5, 33, None)
"""Exit codes that mutmut keeps: the tests passed; no test ran the function."""


@dataclass(frozen=True, order=True)
class Mutant:
    """One change, named by what a reader sees of it."""

    file: str
    was: str
    becomes: str

    def __str__(self) -> str:
        return f"{self.file}\n  - {self.was}\n  + {self.becomes}"


def named(table: str) -> set[Mutant]:
    """The mutants of a Markdown table: file, line, what it becomes (each in backticks), reason."""
    found = set()
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if len(cells) == 4 and all(cell.startswith("`") and cell.endswith("`") for cell in cells[:3]) and cells[3]:
            found.add(Mutant(*(cell.strip("`").replace("\\|", "|") for cell in cells[:3])))
    return found


def survivors(folder: Path) -> Iterator[tuple[str, str, int | None]]:
    """File, name and exit code of each mutant that nothing noticed, of the results in `folder`."""
    for results in sorted(folder.rglob("*.meta")):
        for name, code in json.loads(results.read_text())["exit_code_by_key"].items():
            if code in (*SURVIVED, *NOT_RUN):
                yield results.relative_to(folder).as_posix().removesuffix(".meta"), name, code


def described(file: str, name: str) -> Mutant:
    """What mutmut shows of a mutant: the lines that its change takes and gives."""
    shown = subprocess.run(
        [sys.executable, "-m", "mutmut", "show", name], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = [line for line in shown.stdout.splitlines() if not line.startswith(("---", "+++"))]
    was, becomes = (" ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    return Mutant(file, was, becomes)


def main() -> int:
    """Make the mutants, run the tests, print the survivors."""
    ran = subprocess.run([sys.executable, "-m", "mutmut", "run"], cwd=ROOT)
    if ran.returncode:
        return ran.returncode
    left = {described(file, name): code for file, name, code in survivors(ROOT / "mutants")}
    reasons = named(REASONS.read_text(encoding="utf-8"))
    for mutant in sorted(left.keys() - reasons):
        print(f"{'survived' if left[mutant] in SURVIVED else 'run by no test'}: {mutant}")
    for mutant in sorted(reasons - left.keys()):
        print(f"named in {REASONS.name} and no survivor: {mutant}")
    print(f"{len(left)} mutants survived, {len(left.keys() & reasons)} of them with a reason in tests/{REASONS.name}")
    return int(left.keys() != reasons)


if __name__ == "__main__":
    sys.exit(main())
