"""The engine's processes: how they start, where they write, and that none is left behind."""

from __future__ import annotations

import contextlib
import ctypes
import json
import multiprocessing
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import psutil

from server.engine.protocol import ProcessActivity
from server.settings import SECRET_NAME

ENGINE_FORK_SERVER = "server.engine.fork_server_preload"
NEVER_AGAIN = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD})
"""States of a process in which it does nothing until somebody else does something."""
KILLED_WITHIN_S = 3.0
MAPPED = re.compile(r" /dev/shm/(psm_\w+)$", re.MULTILINE)
"""Shared memory of multiprocessing in /proc/PID/maps, as long as it has a name."""
PR_SET_DUMPABLE = 4
"""Of linux/prctl.h."""
OPERATORS_OWN = frozenset({"OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "VLLM_HOST_IP"})
"""Variables of other programs than ours and vLLM's: what an operator has set for them wins."""


def start_fork_server(modules: Sequence[str], environment: Mapping[str, str]) -> None:
    """Start the fork server, which preloads `modules`; returns at once, it imports by itself.

    `environment` is set for this process and all its children, which read some of it when they load libraries: what is
    set later never reaches it. Call it from the main thread: the fork server ends with the thread that started
    it.
    """
    for name, value in environment.items():
        if name in OPERATORS_OWN:
            os.environ.setdefault(name, value)
        else:
            os.environ[name] = value
    multiprocessing.set_forkserver_preload(list(modules))
    with _without_secrets():
        forkserver.ensure_running()


@contextlib.contextmanager
def _without_secrets() -> Iterator[None]:
    """What opens doors is for this process alone: a program that it starts meanwhile does not inherit it."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if SECRET_NAME.search(name)}
    try:
        yield
    finally:
        os.environ.update(kept)


def keep_memory_private() -> None:
    """Nobody but root may look into this process any more, nor at what it was started with: prctl(2).

    Its decode workers run as the same user, and in its environment stand its keys.
    """
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def logging_to_file(log_file: Path, scratch: Path) -> dict[str, str]:
    """The environment that makes vLLM log to a file in every process; `scratch` keeps the logging's own settings."""
    config = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(asctime)s %(processName)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"file": {"class": "logging.FileHandler", "filename": str(log_file), "formatter": "plain"}},
        "loggers": {"vllm": {"handlers": ["file"], "level": "INFO", "propagate": False}},
    }
    path = scratch / "logging.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    return {"VLLM_LOGGING_CONFIG_PATH": str(path)}


def with_children(pids: Iterable[int]) -> list[psutil.Process]:
    """Processes and all that descends from them, as far as they are there."""
    found: list[psutil.Process] = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return found


def activity_of(pids: Sequence[int]) -> ProcessActivity:
    """What processes and their descendants do. Blocks for some milliseconds."""
    spent, stopped = 0.0, False
    there = with_children(pids)
    for process in there:
        try:
            times = process.cpu_times()
            # Those of children that have ended, too: what they have used must not seem to be taken back.
            spent += times.user + times.system + times.children_user + times.children_system
            # A child of theirs that has ended and is not collected yet keeps nobody waiting.
            stopped |= process.status() in (NEVER_AGAIN if process.pid in pids else {psutil.STATUS_STOPPED})
        except psutil.NoSuchProcess:
            stopped = True
    return ProcessActivity(spent, stopped or len(there) < len(pids))


def kill_now(pids: Iterable[int]) -> None:
    """End processes and their descendants with SIGKILL, which also ends those that are stopped. Blocks until then."""
    found = with_children(pids)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    _await_end(found, KILLED_WITHIN_S)


def shared_memory_of(pids: Iterable[int]) -> set[str]:
    """The names of shared memory that processes and their descendants have mapped. Blocks for some milliseconds."""
    names: set[str] = set()
    for process in with_children(pids):
        with contextlib.suppress(OSError):  # it has ended
            maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
            names.update(MAPPED.findall(maps))
    return names


def free_shared_memory(names: Iterable[str]) -> None:
    """Remove shared memory whose owners were killed; otherwise it stays for as long as the server."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            memory = SharedMemory(name)
            memory.close()
            memory.unlink()  # tells the resource tracker, too


def _await_end(processes: Sequence[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Return once all have ended, or with those that have not in time.

    In a container whose first process collects nobody, orphans that have ended stay as zombies for good.
    """
    end = time.monotonic() + within_s
    while (alive := [process for process in processes if _runs(process)]) and time.monotonic() < end:
        time.sleep(0.01)
    return alive


def _runs(process: psutil.Process) -> bool:
    """Whether it still holds anything; one that only waits for its parent to collect it does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end_all(grace_s: float) -> None:
    """End every process that descends from this one: ask, wait, then kill.

    All but multiprocessing's resource tracker, which removes shared memory after us and then ends by itself.
    """
    tracker = getattr(resource_tracker._resource_tracker, "_pid", None)
    children = [child for child in psutil.Process().children(recursive=True) if child.pid != tracker]
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    alive = _await_end(children, grace_s)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    _await_end(alive, 1)
    psutil.wait_procs(children, timeout=0)  # collects those that are our own
