"""Settings to vLLM's arguments: defaults for the machine, the operator's word above them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from server.engine.arguments import NAMED, engine_environment, vllm_arguments
from server.engine.device import Device
from server.engine.scripted import ScriptedEngine
from server.engine.setup import ENGINES, set_up_engine
from server.engine.vllm import VllmEngine
from server.families import load_family
from server.settings import Settings
from tests.model import FOLDER

CPU = Device("cpu", "CPU")
GPU = Device("gpu", "NVIDIA H100", 80.0)
UNKNOWN_GPU = Device("gpu", "GPU of unknown size")
MAX_PIXELS = 200_704


def arguments(device: Device = CPU, folder: Path = FOLDER, **settings: Any) -> dict[str, Any]:
    return vllm_arguments(Settings(**settings), folder, device, MAX_PIXELS).arguments


def test_the_model_and_its_pictures() -> None:
    made = arguments(max_pictures=3)
    assert made["model"] == str(FOLDER)
    assert made["limit_mm_per_prompt"] == {"image": 3, "video": 0}


def test_a_cpu_starts_without_compiling_or_profiling() -> None:
    made = arguments(CPU)
    assert made["enforce_eager"] is True
    assert made["skip_mm_profiling"] is True
    assert "quantization" not in made
    assert "gpu_memory_utilization" not in made


def test_a_gpu_gets_the_plan_for_its_memory() -> None:
    made = arguments(GPU)
    assert made["quantization"] is None
    assert made["max_num_batched_tokens"] == 8192
    assert made["gpu_memory_utilization"] == 0.92
    assert "enforce_eager" not in made


def test_a_gpu_of_unknown_size_is_left_to_the_engines_own_defaults() -> None:
    assert set(arguments(UNKNOWN_GPU)).isdisjoint({"max_model_len", "max_num_seqs", "gpu_memory_utilization"})


def test_a_context_is_never_longer_than_the_model_knows(tmp_path: Path) -> None:
    for known, given in [(2048, 2048), (131_072, 32_768)]:
        (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": known}))
        assert arguments(CPU, tmp_path)["max_model_len"] == given


OVERRIDES: dict[str, Any] = {
    "dtype": "float16",
    "quantization": "awq",
    "max_model_len": 1000,
    "max_num_seqs": 3,
    "max_num_batched_tokens": 2000,
    "gpu_memory_utilization": 0.5,
    "tensor_parallel_size": 2,
    "pipeline_parallel_size": 2,
    "nnodes": 2,
    "node_rank": 1,
    "master_addr": "10.0.0.1",
    "master_port": 1234,
    "distributed_executor_backend": "ray",
    "enforce_eager": False,
}


@pytest.mark.parametrize("device", [CPU, GPU, UNKNOWN_GPU], ids=lambda device: device.name)
def test_what_the_operator_sets_wins(device: Device) -> None:
    assert set(OVERRIDES) == set(NAMED)
    made = arguments(device, **OVERRIDES)
    assert {name: made[name] for name in OVERRIDES} == OVERRIDES


def test_any_other_argument_passes_through_and_wins_over_ours() -> None:
    made = arguments(engine_args={"kv_cache_dtype": "fp8", "limit_mm_per_prompt": {"image": 1}, "seed": 7})
    assert made["kv_cache_dtype"] == "fp8"
    assert made["limit_mm_per_prompt"] == {"image": 1}
    assert made["seed"] == 7


@pytest.mark.parametrize(("asked", "budget"), [(None, MAX_PIXELS), (50_176, 50_176)])
def test_the_pixel_budget_is_the_operators_else_what_fits(asked: int | None, budget: int) -> None:
    for device in (CPU, GPU, UNKNOWN_GPU):
        assert vllm_arguments(Settings(max_pixels=asked), FOLDER, device, MAX_PIXELS).max_pixels == budget


def test_a_person_is_told_the_device_and_the_sums() -> None:
    assert vllm_arguments(Settings(), FOLDER, CPU, MAX_PIXELS).notes == ("Engine on CPU",)
    notes = vllm_arguments(Settings(), FOLDER, GPU, MAX_PIXELS).notes
    assert notes[0] == "Engine on NVIDIA H100"
    assert "80.0 GiB" in notes[1]
    assert len(notes) == 6


# ---- The environment


def environment(folder: Path, device: Device, **settings: Any) -> dict[str, str]:
    return engine_environment(Settings(**settings), device, folder / "engine.log", folder)


def test_vllm_reports_no_usage_and_writes_to_the_log_alone(tmp_path: Path) -> None:
    for device in (CPU, GPU):
        made = environment(tmp_path, device)
        assert made["VLLM_NO_USAGE_STATS"] == "1"
        config = json.loads(Path(made["VLLM_LOGGING_CONFIG_PATH"]).read_text())
        assert config["handlers"]["file"]["filename"] == str(tmp_path / "engine.log")
        assert config["loggers"]["vllm"] == {"handlers": ["file"], "level": "INFO", "propagate": False}


def test_the_cpu_engine_is_told_what_it_is_and_how_much_it_may_keep(tmp_path: Path) -> None:
    made = environment(tmp_path, CPU)
    assert (made["VLLM_TARGET_DEVICE"], made["VLLM_CPU_KVCACHE_SPACE"]) == ("cpu", "2")
    assert environment(tmp_path, CPU, kv_cache_gib=7)["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert "VLLM_TARGET_DEVICE" not in environment(tmp_path, GPU)


# ---- The choice of an engine


def test_vllm_is_the_engine_unless_another_is_asked_for(tmp_path: Path) -> None:
    family, log = load_family(FOLDER), tmp_path / "log"
    assert isinstance(set_up_engine(Settings(), FOLDER, family, CPU, log).engine, VllmEngine)
    scripted = set_up_engine(Settings(engine="scripted"), FOLDER, family, CPU, log)
    assert isinstance(scripted.engine, ScriptedEngine)
    assert "runs no model" in scripted.notes[0]


def test_every_engine_of_the_settings_can_be_set_up() -> None:
    kinds = Settings.model_fields["engine"].annotation
    assert set(ENGINES) == set(kinds.__args__)  # type: ignore[union-attr]
