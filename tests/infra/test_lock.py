"""The lock: what it must hold; `infra/install.sh` on small wheels in a folder: nothing unlocked or altered comes in."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "infra/requirements.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
BLOCK = re.compile(
    r"^([a-z0-9.-]+)==(\S+)(?: ; [^\n]+?)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)
PINS = {name: version for name, version, _ in BLOCK.findall(LOCK)}


def test_every_line_is_a_pin_with_hashes_and_none_an_address() -> None:
    rest = BLOCK.sub("", LOCK)
    assert re.sub(r"^#.*\n", "", rest, flags=re.MULTILINE) == ""
    assert "://" not in LOCK


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_pyproject_is_what_the_lock_was_compiled_from(extra: str) -> None:
    for line in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(line)
        pinned = PINS.get(canonicalize_name(requirement.name))
        assert pinned is not None, f"{line}: not in infra/requirements.txt; run: make lock"
        assert requirement.specifier.contains(pinned), f"{line}: the lock has {pinned}; run: make lock"


def test_each_version_that_the_contract_fixes() -> None:
    fixed = {
        "protobuf": "6.33.6",
        "kfp": "2.17.0",
        "google-cloud-aiplatform": "2.7.0",
        "google-cloud-storage": "3.17.1",
    }
    assert {name: PINS[name] for name in fixed} == fixed
    assert PINS["mlflow"] == PINS["mlflow-skinny"] == "3.17.2"


OLDEST = "3.11.0"
"""Of the Pythons that set-up takes; Debian 12 has 3.11.2."""


def test_the_lock_is_compiled_for_the_oldest_python() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"--python-version (\S+)", makefile) == [OLDEST]
    assert PROJECT["requires-python"].startswith(f">={OLDEST.rpartition('.')[0]},")
    assert "assert (3,11) <= sys.version_info" in makefile


@pytest.mark.system
@pytest.mark.parametrize("version", [OLDEST, "3.11.2", "3.12.0"])
def test_every_python_that_is_taken_finds_all_it_needs_in_the_lock(version: str, tmp_path: Path) -> None:
    words = [str(Path(sys.executable).parent / "uv"), "pip", "install", "--quiet", "--dry-run", "--require-hashes"]
    words += ["--python-version", version, "--target", str(tmp_path), "--constraints", "infra/requirements.txt"]
    words += ["--requirements", "pyproject.toml", *(word for extra in EXTRAS for word in ("--extra", extra))]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


class Index:
    """A project with a lock of its own, and wheels in a folder that is the only index."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "project"
        self.wheels = folder / "wheels"
        self.wheels.mkdir()
        (self.root / "infra").mkdir(parents=True)
        shutil.copy(ROOT / "infra/install.sh", self.root / "infra")
        (self.root / "pyproject.toml").write_text(
            '[project]\nname = "small"\nversion = "1"\n'
            '[project.optional-dependencies]\nui = ["first>=1"]\nvision = ["torch>=1"]\n'
        )
        self.python = folder / "venv/bin/python"
        self._uv("venv", "--quiet", "--python", sys.executable, str(folder / "venv"))

    def wheel(self, name: str, version: str, needs: str = "", folder: Path | None = None) -> str:
        """Make one; returns its line of the lock, without hash when it lies elsewhere."""
        file = (folder or self.wheels) / f"{name}-{version}-py3-none-any.whl"
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(file, "w") as archive:
            about = f"{name}-{version}.dist-info"
            archive.writestr(f"{name}.py", f"version = {version!r}\n")
            lines = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" + (
                f"Requires-Dist: {needs}\n" if needs else ""
            )
            archive.writestr(f"{about}/METADATA", lines)
            archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{about}/RECORD", "")
        return f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"

    def _uv(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        uv = Path(sys.executable).with_name("uv")
        return self._run(str(uv), *arguments, **variables)

    def _run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {"PATH": path, "HOME": str(self.root), "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(self.wheels)}
        return subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=120)

    def install(self, *extras: str, lock: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`infra/install.sh` for these extras with this lock."""
        (self.root / "infra/requirements.txt").write_text(lock)
        return self._run(str(self.root / "infra/install.sh"), str(self.python), *extras, **variables)

    def installed(self) -> set[str]:
        """`name==version` of all that the environment has."""
        return set(self._uv("pip", "freeze", "--python", str(self.python)).stdout.split())


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path)


def test_the_lock_decides_which_version_is_installed(index: Index) -> None:
    lock = index.wheel("first", "1.0", needs="second") + index.wheel("second", "1.0")
    index.wheel("first", "2.0", needs="second")
    done = index.install("ui", lock=lock)
    assert done.returncode == 0, done.stderr
    assert index.installed() == {"first==1.0", "second==1.0"}


def test_a_wheel_with_another_hash_is_refused(index: Index) -> None:
    lock = index.wheel("first", "1.0", needs="second") + index.wheel("second", "1.0")
    index.wheel("second", "1.0", needs="first")  # altered since
    done = index.install("ui", lock=lock)
    assert done.returncode != 0
    assert "Hash mismatch for `second==1.0`" in done.stderr
    assert index.installed() == set()


def test_a_dependency_that_is_not_in_the_lock_is_refused(index: Index) -> None:
    lock = index.wheel("first", "1.0", needs="second")
    index.wheel("second", "1.0")
    done = index.install("ui", lock=lock)
    assert done.returncode != 0
    assert "no trusted hash" in done.stderr and "second" in done.stderr
    assert index.installed() == set()


def test_torch_of_another_index_comes_in_the_locked_version_and_all_else_with_its_hash(index: Index) -> None:
    lock = index.wheel("first", "1.0") + index.wheel("torch", "1.5", needs="triton") + index.wheel("triton", "3.0")
    pages = index.root / "other/torch"
    for version in ("1.5+cpu", "1.6+cpu"):
        index.wheel("torch", version, needs="first", folder=pages)
    links = [f'<a href="{file.name.replace("+", "%2B")}">{file.name}</a>' for file in sorted(pages.glob("*.whl"))]
    (pages / "index.html").write_text("\n".join(links))
    other = pages.parent.as_uri()
    done = index.install("vision", "ui", lock=lock, TORCH_INDEX=other, UV_NO_INDEX="", UV_DEFAULT_INDEX=other)
    assert done.returncode == 0, done.stderr
    assert index.installed() == {"first==1.0", "torch==1.5+cpu"}
