"""The instruction sets of this machine on which results may depend, and how a program is made to see fewer."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Final

_TOLD: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Those among the flags that Linux tells; none where it tells nothing."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split(":", 1)[1].split()}
    return [name for name in _TOLD if name in flags]


_CANNOT: Final = 77
"""The exit code of a program that cannot be made to believe in an older processor."""


def older_processor(wanted: str, folder: Path) -> dict[str, str] | None:
    """The environment in which programs believe to run on an older x86 processor; None where that cannot be done.

    A C compiler is needed (gcc, libc6-dev).

    Args:
        wanted: the newest instruction set that they may use, `avx512` (without AMX) or `avx2`.
        folder: for the library that takes the others out of what CPUID says.
    """
    if platform.machine() != "x86_64":
        return None
    library = folder / "older_processor.so"
    source = Path(__file__).parent / "infra" / "older_processor.c"
    command = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True, timeout=60)
    older = {**os.environ, "OLDER_PROCESSOR": wanted, "LD_PRELOAD": str(library), "OMP_NUM_THREADS": "1"}
    return None if subprocess.run(["true"], env=older, check=False).returncode == _CANNOT else older
