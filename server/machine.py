"""What this process may use of its machine: memory and cores, within what a container or a unit is held to.

A container sees the whole machine's memory in /proc. What it may have stands in its control groups: those of version 2
(kernel.org, cgroup-v2.rst: `memory.max`, `cpu.max`), or of version 1 (`memory.limit_in_bytes`, `cpu.cfs_quota_us`).
The limits of all groups around it hold, too.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
"""A line for each hierarchy: its number, its controllers, and this process' group there (cgroups(7))."""


def memory_bytes(groups: Path = GROUPS, own: Path = OWN_GROUPS) -> int:
    """The most memory that this process can have."""
    limits = [int(psutil.virtual_memory().total)]
    for folder in _folders("memory", groups, own):
        limits += [int(word) for name in ("memory.max", "memory.limit_in_bytes") for word in _words(folder / name)[:1]]
    return min(limits)


def cores(groups: Path = GROUPS, own: Path = OWN_GROUPS) -> int:
    """Physical cores that this process can keep busy; at least one."""
    allowed = len(os.sched_getaffinity(0))
    return _within_quota(min(allowed, psutil.cpu_count(logical=False) or allowed), groups, own)


def hardware_threads(groups: Path = GROUPS, own: Path = OWN_GROUPS) -> int:
    """Logical cores that this process can keep busy; at least one."""
    return _within_quota(len(os.sched_getaffinity(0)), groups, own)


def _within_quota(most: float, groups: Path, own: Path) -> int:
    for folder in _folders("cpu", groups, own):
        quota = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(quota) == 2:
            most = min(most, int(quota[0]) / int(quota[1]))
    return max(1, math.ceil(most))


def _folders(controller: str, groups: Path, own: Path) -> Iterator[Path]:
    """The groups that this process is in, and those around them, as far as they can be seen."""
    lines: list[str] = []
    with contextlib.suppress(OSError):
        lines = own.read_text(encoding="ascii", errors="replace").splitlines()
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        roots = (groups / controllers, groups / controller) if controllers else ()
        root = next(filter(Path.is_dir, roots), groups)
        here = root / group.lstrip("/")
        yield from (folder for folder in (here, *here.parents) if folder == root or root in folder.parents)


def _words(file: Path) -> list[str]:
    """The numbers in a file; none where there is no such file or limit."""
    try:
        words = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []
    return words if all(word.isdecimal() for word in words) else []
