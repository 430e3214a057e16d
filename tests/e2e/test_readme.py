"""The README's own verbs on a finished run; the other commands and pages: tests/docs."""

import shlex
from pathlib import Path
from typing import Any

from tests.bundles import jpeg
from tests.docs.commands import commands
from tests.e2e.conftest import ROOT, Cli


def test_every_aidetect_command_runs(passed: tuple[Cli, dict[str, Any]], tmp_path: Path) -> None:
    cli, _ = passed
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(jpeg(180))
    ran = set()
    for command in commands(ROOT / "README.md"):
        if command.reason or not command.text.startswith(".venv/bin/aidetect"):
            continue
        words = shlex.split(command.text)[1:]
        if words[0] == "run":
            continue  # both branches of the gate are driven, with a quick training, in test_pipeline.py
        words = [str(tmp_path / word) if word.endswith((".jpg", ".png", ".json")) else word for word in words]
        done = cli(*words) if "production" in words or words[0] == "compile" else cli.here(*words)
        assert done.returncode == 0, (command.text, done.stderr)
        ran.add(words[0])
    assert {"predict", "explain", "models", "compile", "config"} <= ran
