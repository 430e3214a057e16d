"""`.ci/run` with names of steps: a name that no step has is an error, not a green run of nothing."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_step_that_does_not_exist_is_an_error() -> None:
    done = subprocess.run(["bash", ".ci/run", "nonsense"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stdout
    assert "no step is named nonsense" in done.stderr
    assert "===" not in done.stdout.partition("=== times")[0]
