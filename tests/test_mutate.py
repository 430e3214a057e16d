"""The list of named mutants is read as it is written, and results as mutmut leaves them."""

import json
from pathlib import Path

from tests.mutate import REASONS, Mutant, named, survivors


def test_a_row_names_one_change_and_needs_a_reason() -> None:
    rows = ["| file | line | becomes | why |", "|---|---|---|---|", "| `a.py` | `x \\| y` | `x` | y is x |"]
    rows.append("| `b.py` | `1` | `2` | |")
    assert named("\n".join(rows)) == {Mutant("a.py", "x | y", "x")}


def test_every_row_of_the_list_names_a_line_that_stands_there() -> None:
    rows = [line for line in REASONS.read_text().splitlines() if line.startswith("| `")]
    mutants = named("\n".join(rows))
    assert len(mutants) == len(rows)
    for mutant in mutants:
        code = " ".join((REASONS.parent.parent / mutant.file).read_text().split())
        assert " ".join(mutant.was.split()) in code, mutant


def test_what_passed_and_what_nothing_ran_survive(tmp_path: Path) -> None:
    results = tmp_path / "serving" / "a.py.meta"
    results.parent.mkdir()
    results.write_text(
        json.dumps({"exit_code_by_key": {"killed": 1, "late": 36, "lives": 0, "unseen": 33, "left": None}})
    )
    assert [(file, name) for file, name, _ in survivors(tmp_path)] == [
        ("serving/a.py", name) for name in ("lives", "unseen", "left")
    ]
