"""How many cores this process may really use."""

import os
from pathlib import Path, PurePosixPath
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_OWN: Final = Path("/proc/self/cgroup")


def usable_cores(cgroup: Path = _CGROUP, own: Path = _OWN) -> int:
    """Cores of the scheduler's affinity mask, less where a container's CPU quota gives fewer; at least 1.

    Args:
        cgroup: mount point of the control groups, version 2 or 1; one that is missing or unreadable sets no limit.
        own: the file that names this process's groups; the quotas of all groups around it hold, too.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _groups(cgroup, own) if (quota := _quota(folder)) is not None]
    return max(1, min([allowed, *map(round, quotas)]))


def _groups(cgroup: Path, own: Path) -> list[Path]:
    """Folders of this process's CPU groups and of those around them, of version 2 and 1."""
    found = [cgroup, cgroup / "cpu"]
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = cgroup / "cpu" if controllers else cgroup
        inner = PurePosixPath(path.strip("/"))
        if ".." not in inner.parts:  # a group outside this container's own view
            found += [base / group for group in (inner, *inner.parents)]
    return found


def _quota(group: Path) -> float | None:
    """Cores' worth of CPU time a period that a group has; None without a limit."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu.cfs_period_us").read_text().strip()
        return None if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
