"""What a container is held to is read from its control groups, of either version."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from server import machine

GIB = 1 << 30
HOST = int(psutil.virtual_memory().total)


def written(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


@pytest.mark.parametrize(
    ("own", "files", "memory", "cores"),
    [
        ("0::/\n", {"memory.max": f"{GIB}\n", "cpu.max": "100000 100000\n"}, GIB, 1),
        ("0::/\n", {"memory.max": "max\n", "cpu.max": "max 100000\n"}, HOST, None),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{GIB}", "memory.max": "max"}, GIB, None),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "max 100000"}, HOST, 1),
        ("0::/gone\n", {"memory.max": f"{GIB}"}, GIB, None),
        ("4:memory:/docker/1\n", {"memory/docker/1/memory.limit_in_bytes": f"{GIB}\n"}, GIB, None),
        ("4:memory:/docker/1\n", {"memory/memory.limit_in_bytes": f"{GIB}\n"}, GIB, None),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, HOST, None),
        (
            "3:cpu,cpuacct:/x\n0::/\n",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "100000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            HOST,
            1,
        ),
        ("3:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, HOST, None),
        ("3:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "1000\n", "cpu/cpu.cfs_period_us": "100000\n"}, HOST, 1),
        ("", {}, HOST, None),
        ("nonsense\n\xff:", {"memory.max": "much", "cpu.max": "\xff"}, HOST, None),
    ],
)
def test_limits_of_a_container_hold(
    tmp_path: Path, own: str, files: dict[str, str], memory: int, cores: int | None
) -> None:
    groups = written(tmp_path / "cgroup", files)
    line = tmp_path / "own"
    line.write_text(own)
    assert machine.memory_bytes(groups, line) == memory
    all_cores = machine.cores(tmp_path / "nothing", tmp_path / "nothing")
    assert machine.cores(groups, line) == (all_cores if cores is None else min(cores, all_cores))


def test_a_quota_of_many_cores_is_no_more_than_there_are(tmp_path: Path) -> None:
    groups = written(tmp_path, {"cpu.max": "1000000000 100000"})
    own = tmp_path / "own"
    own.write_text("0::/\n")
    assert 1 <= machine.cores(groups, own) <= len(os.sched_getaffinity(0))
