"""The import rules of `make lint` refuse what is planted in a copy of the code."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = ("pipelines", "components", "serving", "infra")


def lint(folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_planted_imports_and_rings_are_refused_by_name(tmp_path: Path) -> None:
    for name in CODE:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    def plant(path: str, line: str) -> None:
        with (tmp_path / path).open("a") as file:
            file.write(line)

    plant("components/train/card.py", "\n\ndef planted():\n    from serving.http.security import policy\n")
    # `signals` is imported by `monitor`: a ring of two, one of its arrows inside a function
    plant("serving/drift/signals.py", "\n\ndef planted():\n    import serving.drift.monitor\n")
    plant("pipelines/cost.py", "\n\nif TYPE_CHECKING:\n    import pipelines.cli\n")
    (tmp_path / "serving" / "newcomer").mkdir()
    plant("serving/newcomer/__init__.py", "import serving.platform.errors\n")
    plant("components/register/stage.py", "\n\ndef planted():\n    import components.quality_gate.stage\n")

    done = lint(tmp_path)

    said = " ".join(done.stdout.split())
    assert done.returncode == 1, done.stdout + done.stderr
    assert "imports serving.http.security.policy: components.train may not import serving.http" in said
    assert "imports pipelines.cli: pipelines.cost may not import pipelines.cli" in said
    assert "serving.newcomer stands in no room" in said
    assert "No rings, whether between rooms or inside one BROKEN" in said
    assert "serving.drift" in said.partition("No rings")[2]
    assert "only the policy and its configuration are seen" in said
    assert "components.quality_gate.stage" in said
