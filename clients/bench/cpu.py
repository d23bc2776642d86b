"""Accounting of a server's processes: what the front end costs, the engine left out.

The front end is every process of the server but the engine's: the API process, the front end in Rust, workers that
decode pictures, and the process from which our server forks those. The engine's are vLLM's EngineCore and Worker, which
name themselves so, with all that they start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psutil

ENGINE_TITLES = ("VLLM::EngineCore", "VLLM::Worker")
MIB = 1 << 20


def front_end(root: int) -> list[psutil.Process]:
    """The processes of the front end of the server whose first process is `root`.

    Raises psutil.NoSuchProcess where that has ended.
    """
    return list(_front_end(psutil.Process(root)))


def _front_end(process: psutil.Process) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        if is_engine(_command(process)):
            return
        yield process
        for child in process.children():
            yield from _front_end(child)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.ZombieProcess:  # ended and not collected yet: it has no command any more, but still its times
        return ""


def is_engine(command: str) -> bool:
    """Whether a command line is that of a process that runs the model."""
    return command.startswith(ENGINE_TITLES)


def cpu_seconds(root: int) -> float:
    """CPU seconds that the front end has used so far, in steps of 10 ms a process.

    Processes that have ended are counted too, in the parent that has collected them: the difference of two readings
    holds whatever came and went between them.
    """
    total = 0.0
    for process in front_end(root):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_mib(root: int) -> float:
    """Memory of the front end in MiB: what is shared between processes counts in parts (PSS)."""
    total = 0
    for process in front_end(root):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / MIB
