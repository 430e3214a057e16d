"""A stranger's clock: from `git clone` to the verdict on photos of his own, set-up included, each step timed aloud."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.docs.commands import commands
from tests.e2e.conftest import ROOT, own_photos
from tests.untraced import untraced

GUIDE = ROOT / "docs" / "OWN_PHOTOS.md"
pytestmark = [pytest.mark.system, pytest.mark.nightly, pytest.mark.slow]


class Stranger:
    """A shell in an empty folder, whose every command is timed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock: list[tuple[str, float]] = []

    def types(self, command: str, expected: int = 0, timeout_s: float = 1500) -> str:
        """Run one command line; returns what it printed."""
        start = time.monotonic()
        environment = {name: value for name, value in untraced().items() if name not in ("VIRTUAL_ENV", "PYTHONPATH")}
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=environment | {"PATH": f"{self.folder / '.venv/bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )
        self.clock.append((command, time.monotonic() - start))
        assert done.returncode == expected, (command, done.returncode, done.stdout[-3000:], done.stderr[-3000:])
        return done.stdout

    def told(self) -> str:
        """Seconds of each command, and their sum."""
        lines = [f"  {seconds:6.1f} s  {command}" for command, seconds in self.clock]
        return "\n".join(["", *lines, f"  {sum(seconds for _, seconds in self.clock):6.1f} s  in all"])


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    """He has cloned what is committed here, and set the environment up as the guide says."""
    found = Stranger(tmp_path)
    found.types(f"git clone -q file://{ROOT} detector")
    found.folder = tmp_path / "detector"
    # nothing of this session's environment but the installer's cache and index
    found.types(os.environ.get("STRANGER_SETUP", "make setup"))
    return found


def test_from_clone_to_the_verdict_on_a_folder_of_photos(
    stranger: Stranger, capsys: pytest.CaptureFixture[str]
) -> None:
    own_photos(stranger.folder / "mine", each=150)
    shutil.copy(stranger.folder / "mine/genuine/IMG 0148.jpg", stranger.folder / "photo.jpg")
    typed = [command.text for command in commands(GUIDE) if command.text.startswith("aidetect ")]
    imported, judged, served, asked = typed[:4]
    said = stranger.types(imported)
    quoted = re.findall(r"^(?:train|val|test|cut) .*$", GUIDE.read_text(), re.MULTILINE)
    assert len(quoted) == 4 and set(quoted) <= set(said.splitlines()), "the guide quotes what the command says"
    said = stranger.types(judged, expected=2)
    assert "60 different test images (at least 1,000)" in said
    assert "--resume last" in served
    stranger.types(served)
    (resumed,) = stranger.folder.glob("workspace/runs/*/reused.json")
    assert list(json.loads(resumed.read_text())) == ["verify-data", "train", "evaluate"], "it trains once"
    verdict = stranger.types(asked)
    assert re.search(r"likely_real|review|likely_ai", verdict)
    with capsys.disabled():
        print(stranger.told())


def test_from_clone_to_the_verdict_on_a_photo(stranger: Stranger, capsys: pytest.CaptureFixture[str]) -> None:
    own_photos(stranger.folder / "mine", each=2)
    stranger.types("make run")
    verdict = stranger.types("aidetect predict 'mine/genuine/IMG 0000.jpg'")
    assert re.search(r"likely_real|review|likely_ai", verdict)
    with capsys.disabled():
        print(stranger.told())
