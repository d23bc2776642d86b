"""The engine's processes: how they start, where they write, and that none is left behind."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import TextIO

import psutil

ZYGOTE = "server.engine.zygote_preload"
OPERATORS_OWN = frozenset({"OMP_NUM_THREADS"})
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
    forkserver.ensure_running()


def usable_cores() -> int:
    """Physical cores that this process may run on."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def redirect_output(log_file: Path) -> TextIO:
    """Send file descriptors 1 and 2 of this process, and of those it starts, to a file; returns the terminal.

    Whatever torch and vLLM write, Python or C++, then goes to the log and never over what a person sees.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors="replace")
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    return terminal


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


def end_all(grace_s: float) -> None:
    """End every process that descends from this one: ask, wait, then kill.

    All but multiprocessing's resource tracker, which removes shared memory after us and then ends by itself.
    """
    tracker = getattr(resource_tracker._resource_tracker, "_pid", None)
    children = [child for child in psutil.Process().children(recursive=True) if child.pid != tracker]
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _, alive = psutil.wait_procs(children, timeout=grace_s)
    for child in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(alive, timeout=1)
