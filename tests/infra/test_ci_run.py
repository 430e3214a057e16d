"""`.ci/run` with names of steps: an unknown one is an error, not a green run of nothing; what runs aside counts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_a_step_that_does_not_exist_is_an_error() -> None:
    done = subprocess.run(["bash", ".ci/run", "nonsense"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stdout
    assert "no step is named nonsense" in done.stderr
    assert "===" not in done.stdout.partition("=== times")[0]


@pytest.mark.parametrize("failing", ["", "lint", "check-terraform"])
def test_steps_that_run_aside_are_waited_for_told_and_counted(tmp_path: Path, failing: str) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    program = f'#!/bin/bash\n[ "$1" = lint ] || sleep 0.3\necho "made $1"\n[ "$1" != "{failing}" ]\n'
    (tmp_path / "make").write_text(program)
    (tmp_path / "make").chmod(0o755)
    (tmp_path / "infra/ci").mkdir(parents=True)
    (tmp_path / "infra/ci/engine.sh").touch()
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["bash", ".ci/run", "lint", "static", "terraform", "security"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode == 0) == (not failing), done.stdout + done.stderr
    for target in ("lint", "check-static", "check-terraform"):
        assert f"made {target}\n" in done.stdout, "whatever fails, all that began is told"
    assert ("made check-security" in done.stdout) == (not failing), "nothing goes on after a failure"
    times = done.stdout.partition("=== times")[2]
    assert ("terraform         0 s, FAILED" in times) == (failing == "check-terraform")
    assert "static" in times and ("FAILED in the step" in times) == bool(failing)
    assert not list(tmp_path.glob("tmp.*")), "no folder stays"
