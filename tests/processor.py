"""The instruction sets of this machine on which results may depend."""

from pathlib import Path
from typing import Final

_TOLD: Final = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Those among the flags that Linux tells; none where it tells nothing."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split(":", 1)[1].split()}
    return [name for name in _TOLD if name in flags]
