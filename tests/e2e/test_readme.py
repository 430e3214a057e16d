"""The README keeps its word: every command in it runs, is a target that CI runs, or needs what it says."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tests.bundles import jpeg
from tests.e2e.conftest import ROOT, Cli

pytestmark = pytest.mark.xdist_group("pipeline")

README = (ROOT / "README.md").read_text()
RUN_BY_CI = ("make run", "make test", "make help")
NEEDS_A_SERVER = ("make serve", "curl ", "make ui")
"""Run by the tests of the server and of the page: `aidetect serve` below, tests/serving and tests/serving/ui."""


def commands() -> list[str]:
    found = []
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL):
        lines = (line.partition("   #")[0].strip() for line in block.splitlines())
        found += [line for line in lines if line and not line.startswith("#")]
    return found


def test_every_make_target_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.MULTILINE))
    assert named <= targets, named - targets
    ci = (ROOT / ".ci" / "run").read_text()
    assert "make run" in ci and "make test" in ci


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert links and missing == []


def test_every_aidetect_command_runs(passed: tuple[Cli, dict[str, Any]], tmp_path: Path) -> None:
    cli, _ = passed
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(180))
    ran = 0
    for command in commands():
        if not command.startswith(".venv/bin/aidetect"):
            assert command.startswith((*RUN_BY_CI, *NEEDS_A_SERVER)), f"nobody runs this: {command}"
            continue
        words = [str(tmp_path / w) if w.endswith((".jpg", ".png", ".json")) else w for w in shlex.split(command)[1:]]
        if words[0] == "run":
            continue  # the same two gates are driven, with a quick training, in test_pipeline.py
        done = cli(*words) if words[0] == "compile" else cli.here(*words)
        assert done.returncode == 0, (command, done.stderr)
        ran += 1
    assert ran >= 4
