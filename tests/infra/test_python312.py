"""What `make check-python` decides by itself: which tests need torch, and what an environment without it holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.untraced import untraced

HERE = Path(__file__).resolve().parents[2] / "infra/ci/python312"
ABSENT = "import no_such_torch"
TESTS = {
    "conftest.py": 'import os, torch_watch\ntorch_watch.start("no_such_torch", os.path.dirname(__file__))\n',
    "test_module.py": f"{ABSENT}\ndef test_one(): pass\n",
    "test_other_module.py": "def test_passes(): pass\n",
    "test_inside.py": f"""
import subprocess, sys, pytest

@pytest.fixture(scope="module")
def shared():
    {ABSENT}

def test_asks(): {ABSENT}
def test_first_of_fixture(shared): pass
def test_second_of_fixture(shared): pass
def test_of_another_process():
    start = 'import torch_watch; torch_watch.start("no_such_torch", "."); {ABSENT}'
    environment = {{"PATH": "/usr/bin", "PYTHONPATH": "{HERE}"}}
    subprocess.run([sys.executable, "-c", start], check=True, capture_output=True, env=environment)
def test_goes_on_without():
    with pytest.raises(ImportError):
        {ABSENT}
""",
}


def run(folder: Path, *options: str, **more: str) -> "subprocess.CompletedProcess[str]":
    for name, text in {**TESTS, **more}.items():
        (folder / name.replace("__", ".")).write_text(text)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "torch_free", "-p", "no:cacheprovider", "-rfE", *options, str(folder)],
        cwd=folder,
        env={**untraced(), "PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_tests_that_need_torch_are_set_apart_and_named(tmp_path: Path, workers: str) -> None:
    done = run(tmp_path, "-n", workers, "--at-least", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "need torch: 4 tests, 1 modules or folders" in done.stdout
    named = done.stdout.partition("need torch")[2].splitlines()[1:6]
    assert named == [
        "test_inside.py::test_asks",
        "test_inside.py::test_first_of_fixture",
        "test_inside.py::test_of_another_process",
        "test_inside.py::test_second_of_fixture",
        "test_module.py",
    ]
    assert done.stdout.splitlines()[-1].strip("= ").startswith("2 passed, 5 skipped")


def test_fewer_than_promised_is_a_failure(tmp_path: Path) -> None:
    done = run(tmp_path, "--at-least", "3")
    assert done.returncode == 1
    assert "FAILED: fewer than 3 tests passed" in done.stdout


@pytest.mark.parametrize(
    "module", ["def test_wrong(): assert 0", "import no_such_module", "def test_wrong(): import nope"]
)
def test_any_other_failure_stays_one(tmp_path: Path, module: str) -> None:
    done = run(tmp_path, test_wrong__py=module)
    assert done.returncode != 0
    assert "test_wrong.py" in done.stdout.partition("short test summary")[2]


def report(folder: Path, *requirements: str) -> None:
    """What pip writes for a project with these requirements, of versions that are pinned."""
    needs = {
        "ours": list(requirements),
        "torch": ["triton", "numpy"],
        "timm": ["torch>=2", "huggingface_hub"],
        "triton": [],
        "numpy": [],
        "scipy": ['click; extra == "cli"', 'timm; extra == "all"'],
        "huggingface_hub": ['click; extra == "cli"'],
        "click": [],
    }
    items = [
        {"metadata": {"name": n, "version": "1", "requires_dist": d}, "is_direct": n == "ours", "requested_extras": []}
        for n, d in needs.items()
    ]
    items[0]["requested_extras"] = ["train", "serve"]
    (folder / "report.json").write_text(json.dumps({"install": items, "environment": {}}))
    (folder / "log").write_text("  Downloading numpy-1.whl.metadata (2 kB)\n  Downloading click-1.tar.gz (2 kB)\n")


def resolved(folder: Path, extras: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(HERE / "resolved.py"), str(folder), extras]
    return subprocess.run(command, capture_output=True, text=True)


def test_an_environment_without_torch_holds_nothing_built_on_it(tmp_path: Path) -> None:
    report(tmp_path, "numpy", 'timm; extra == "train"', 'scipy[cli]; extra == "serve"', 'scipy[all]; extra == "train"')
    done = resolved(tmp_path, "train,serve")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "missing.txt").read_text().split() == ["timm", "torch"]
    assert (tmp_path / "install.txt").read_text().split() == ["click==1", "numpy==1", "scipy==1"]
    assert "not installed: huggingface-hub==1 timm==1 torch==1 triton==1" in done.stdout
    assert "no metadata of them: click-1.tar.gz\n" in done.stdout
    resolved(tmp_path, "train")
    assert (tmp_path / "install.txt").read_text().split() == ["numpy==1", "scipy==1"]


def test_what_resolves_without_a_pin_is_an_error(tmp_path: Path) -> None:
    report(tmp_path, "numpy")
    text = (tmp_path / "report.json").read_text().replace("click", "no-such-package")
    (tmp_path / "report.json").write_text(text)
    done = resolved(tmp_path, "serve")
    assert done.returncode == 1
    assert "no pin in infra/constraints.txt: no-such-package==1" in done.stderr
