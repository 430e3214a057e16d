"""A fresh clone with the working tree's files: what a reader of the guides has in front of him."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT
from tests.untraced import untraced

BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Clone:
    """A checkout of its own; commands run in its folder with the environment active."""

    folder: Path

    def sh(self, command: str, timeout_s: float = 300, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run one command line in bash."""
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment(**environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment of a shell after `source .venv/bin/activate`."""
        return {**untraced(), "PATH": f"{BIN}:{os.environ['PATH']}", "VIRTUAL_ENV": str(BIN.parent), **extra}


def clone_to(folder: Path) -> Clone:
    """What git would hand out if everything were committed now."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    _share_environment(folder / ".venv")
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.test", "-c", "commit.gpgsign=false")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)
    return Clone(folder)


def _share_environment(venv: Path) -> None:
    """The environment that runs the tests; its stamps are newer than the clone, so that make installs nothing."""
    venv.mkdir()
    for entry in BIN.parent.iterdir():
        if not entry.name.startswith("."):
            (venv / entry.name).symlink_to(entry)
    for stamp in (".installed", ".with-dvc", ".with-notebook", ".with-docs", ".with-load", ".with-mlflow", ".with-ray"):
        (venv / stamp).touch()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """One clone for the tests of a module, where people keep things: with a blank and a quote in its path."""
    return clone_to(tmp_path_factory.mktemp("a reader's clone"))
