"""Chooses the engine by name. vLLM is imported only by the engine that needs it, and only when that starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from server.engine.arguments import vllm_arguments
from server.engine.device import Device
from server.engine.protocol import Engine
from server.engine.scripted import ScriptedEngine
from server.engine.vllm import VllmEngine
from server.families.family import Family
from server.settings import Settings

GPU_STEP_S, CPU_STEP_S = 300.0, 3600.0
"""Longer than any step takes: vLLM's own limit, and a full page through seven billion parameters on two cores."""


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """How an engine is made that has not been started, and what a person is told about it."""

    make: Callable[[], Engine]
    """An engine for each start: one that has died is never started again."""
    max_pixels: int
    """The most pixels of a picture that the model and its context have room for."""
    notes: tuple[str, ...] = ()
    step_s: float = GPU_STEP_S
    """Longer than any step of the model takes here."""


def _vllm(settings: Settings, folder: Path, family: Family, device: Device, log_file: Path) -> EngineSetup:
    chosen = vllm_arguments(settings, folder, device, family)
    make = partial(
        VllmEngine,
        chosen.arguments,
        own_processor=family.patch_size == 1,
        keep_defaults=settings.model_sampling == "keeps",
        log_file=log_file,
    )
    return EngineSetup(make, chosen.max_pixels, chosen.notes, CPU_STEP_S if device.kind == "cpu" else GPU_STEP_S)


def _scripted(settings: Settings, folder: Path, family: Family, device: Device, log_file: Path) -> EngineSetup:
    note = "The scripted engine runs no model: its answers mean nothing."
    return EngineSetup(ScriptedEngine, family.max_pixels, (note,))


ENGINES: dict[str, Callable[[Settings, Path, Family, Device, Path], EngineSetup]] = {
    "vllm": _vllm,
    "scripted": _scripted,
}
"""Engines by the setting `engine`."""


def set_up_engine(settings: Settings, folder: Path, family: Family, device: Device, log_file: Path) -> EngineSetup:
    """The engine that the settings name, for the model in `folder`; its processes write to `log_file`."""
    return ENGINES[settings.engine](settings, folder, family, device, log_file)
