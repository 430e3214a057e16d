"""Environments of packages that are none of this project's: made by uv from a pinned list, kept under `build/`."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path("build/bench")
LISTS = Path(__file__).parent / "peers"


def python_of(name: str) -> Path:
    """The interpreter of the environment that `peers/NAME.txt` describes; made where it is missing or older."""
    listed = LISTS / f"{name}.txt"
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    folder = (FOLDER / name).absolute()
    python, mark = folder / "bin" / "python", folder / "made-from"
    if mark.is_file() and mark.read_text() == digest:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    uv = str(Path(sys.executable).parent / "uv")
    environment = {**os.environ, "UV_SYSTEM_CERTS": "true", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    for command in (
        ["venv", "--quiet", "--python", sys.executable, str(folder)],
        ["pip", "install", "--quiet", "--no-deps", "--python", str(python), "--requirement", str(listed)],
    ):
        subprocess.run([uv, *command], env=environment, check=True, timeout=900)
    mark.write_text(digest)
    return python
