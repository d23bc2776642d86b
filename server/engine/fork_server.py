"""Preloaded once by multiprocessing's fork server: the mother of every engine process.

Importing torch, transformers and vLLM costs 12 to 24 s of CPU in every process that does it, and vLLM's server pays it
three times in a row: in the API process, in its EngineCore and in the EngineCore's Worker. Here the server and this
process import side by side, the EngineCore is forked from this one, and the Worker from the EngineCore. This process
has one thread and has never touched a GPU, so forking it is safe, also for a restart from a running server (where
forking the server itself would not be).
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from functools import partial

BEHIND_THE_SERVER = 5
"""Niceness of the engine and of decode workers where they share the cores with the server, which needs little, but at
once: to refuse what is too much and to pass on what is done."""
NAP_S = 1e-4
"""Of a process that waits for another; a step of the smallest model takes some milliseconds."""
PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that this process gets when its parent dies."""


def end_with_parent() -> None:
    """Let no process of the engine outlive the server, even when that was killed with SIGKILL."""
    _die_with_parent()
    parents = [os.getpid()]

    def remember_parent() -> None:
        parents[0] = os.getpid()

    def watch_parent() -> None:
        _die_with_parent()
        if os.getppid() != parents[0]:  # it died before it could be watched
            os._exit(1)

    os.register_at_fork(before=remember_parent, after_in_child=watch_parent)


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def leave_terminal() -> None:
    """Leave the terminal's foreground group: Ctrl-C is for the server, which drains first and ends the engine then."""
    os.setpgid(0, 0)


def start_processes_by(method: str) -> None:
    """Choose how vLLM starts processes from here on; its own variable refuses `forkserver` and is reset on the CPU."""
    import vllm.envs

    vllm.envs.environment_variables["VLLM_WORKER_MULTIPROC_METHOD"] = lambda: method


def wait_asleep() -> None:
    """Let the engine's processes sleep for a moment where vLLM lets them spin, each on a core, for the other's word.

    On a GPU's host there are cores to spare. Here they are taken from the model, the decode workers and the server.
    """
    from vllm.distributed.device_communicators import shm_broadcast

    shm_broadcast.sched_yield = partial(time.sleep, NAP_S)


def preload() -> None:
    """Import what the engine processes need, once."""
    start_processes_by("fork")
    import vllm.model_executor.models.qwen2_vl
    import vllm.v1.engine.core
    import vllm.v1.executor.multiproc_executor
    import vllm.v1.worker.gpu_worker

    if os.environ.get("VLLM_TARGET_DEVICE") == "cpu":
        os.nice(BEHIND_THE_SERVER)
        wait_asleep()
        import vllm.v1.worker.cpu_worker  # noqa: F401
