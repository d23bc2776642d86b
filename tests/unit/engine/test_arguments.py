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
from server.families.family import Family
from server.settings import Settings
from tests.model import FOLDER
from tests.unit.engine.test_sizing import AIN

CPU = Device("cpu", "CPU")
GPU = Device("gpu", "NVIDIA H100", 80.0)
UNKNOWN_GPU = Device("gpu", "GPU of unknown size")
FAMILY = load_family(FOLDER)
MAX_PIXELS = 200_704


class PicturesOnly:
    """A family whose own processor cuts its pictures, and which takes no clips."""

    min_pixels = 1
    max_pixels = max_frame_pixels = 12_845_056
    patch_size, merge_size, factor = 1, 28, 1
    takes_clips = False


def arguments(device: Device = CPU, folder: Path = FOLDER, family: Family = FAMILY, **settings: Any) -> dict[str, Any]:
    return vllm_arguments(Settings(**settings), folder, device, family).arguments


def limits(device: Device, family: Any = FAMILY, **settings: Any) -> dict[str, Any]:
    """Pages of documents are pictures by then."""
    made = arguments(device, family=family, max_pictures=1, max_pages=2, max_clips=2, **settings)["limit_mm_per_prompt"]
    assert isinstance(made, dict)
    return made


def test_the_model_is_named() -> None:
    assert arguments()["model"] == str(FOLDER)


def test_a_cpu_warms_up_with_small_pictures_and_clips_since_it_profiles_none() -> None:
    assert limits(CPU) == {
        "image": {"count": 3, "width": 64, "height": 64},
        "video": {"count": 2, "num_frames": 2, "width": 64, "height": 64},
    }


def test_where_a_models_own_processor_says_how_long_a_picture_is_it_is_shown_a_largest_one() -> None:
    assert limits(CPU, PicturesOnly()) == {"image": {"count": 3}, "video": {"count": 0}}


@pytest.mark.parametrize("device", [GPU, UNKNOWN_GPU], ids=lambda device: device.name)
def test_a_gpu_keeps_room_for_clips_where_it_has_any(device: Device) -> None:
    assert limits(device) == {"image": 3, "video": 2}
    assert limits(device, PicturesOnly()) == {"image": 3, "video": 0}
    without = arguments(device, max_clips=0, max_pictures=1, max_pages=1)
    assert without["limit_mm_per_prompt"] == {"image": 2, "video": 0}


def test_a_gpu_too_small_for_a_clip_as_long_as_the_context_keeps_room_for_a_picture_alone(tmp_path: Path) -> None:
    """Clips no longer than a largest picture are taken there all the same: the engine counts tokens, not clips."""
    (tmp_path / "config.json").write_text(json.dumps(AIN | {"model_type": "qwen2_vl"}))
    ain = load_family_of_ain(tmp_path)
    assert arguments(Device("gpu", "24", 24.0), tmp_path, ain)["limit_mm_per_prompt"]["video"] == 0
    assert arguments(Device("gpu", "32", 32.0), tmp_path, ain)["limit_mm_per_prompt"]["video"] > 0


def load_family_of_ain(folder: Path) -> Family:
    for name in ("tokenizer.json", "preprocessor_config.json"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    settings = json.loads((folder / "preprocessor_config.json").read_text()) | {"max_pixels": 12_845_056}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return load_family(folder)


def test_a_model_whose_memory_cannot_be_added_up_is_left_to_the_engines_own_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "other", "text_config": {}}))
    made = vllm_arguments(Settings(), tmp_path, GPU, PicturesOnly())  # type: ignore[arg-type]
    assert set(made.arguments).isdisjoint({"quantization", "max_num_seqs", "gpu_memory_utilization"})
    assert made.notes == ("Engine on NVIDIA H100",)


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


@pytest.mark.parametrize("place", ["", "text_config", "llm_config"])
def test_a_context_is_never_longer_than_the_model_knows(tmp_path: Path, place: str) -> None:
    for known, given in [(2048, 2048), (131_072, 32_768)]:
        size = {"max_position_embeddings": known}
        config = {"model_type": "qwen2_vl", **({place: size} if place else size)}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert arguments(CPU, tmp_path)["max_model_len"] == given


def test_a_context_that_is_nowhere_named_is_left_to_the_engine(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "other"}))
    assert "max_model_len" not in arguments(CPU, tmp_path)


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


@pytest.mark.parametrize("asked", [None, 50_176])
def test_the_most_pixels_are_the_models_own_whatever_the_operators_default_is(asked: int | None) -> None:
    for device in (CPU, GPU, UNKNOWN_GPU):
        assert vllm_arguments(Settings(max_pixels=asked), FOLDER, device, FAMILY).max_pixels == MAX_PIXELS


def test_a_picture_leaves_room_for_a_question_in_tokens_of_the_familys_own_size(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_vl", "max_position_embeddings": 4096}))
    family: Any = PicturesOnly()
    family.patch_size, family.merge_size = 16, 2
    made = vllm_arguments(Settings(), tmp_path, CPU, family)
    assert made.max_pixels == (4096 - 1024) * 32 * 32


def test_a_person_is_told_the_device_and_the_sums() -> None:
    assert vllm_arguments(Settings(), FOLDER, CPU, FAMILY).notes == ("Engine on CPU",)
    notes = vllm_arguments(Settings(), FOLDER, GPU, FAMILY).notes
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
    assert isinstance(set_up_engine(Settings(), FOLDER, family, CPU, log).make(), VllmEngine)
    scripted = set_up_engine(Settings(engine="scripted"), FOLDER, family, CPU, log)
    assert isinstance(scripted.make(), ScriptedEngine)
    assert "runs no model" in scripted.notes[0]


def test_every_engine_of_the_settings_can_be_set_up() -> None:
    kinds = Settings.model_fields["engine"].annotation
    assert set(ENGINES) == set(kinds.__args__)  # type: ignore[union-attr]
