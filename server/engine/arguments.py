"""Settings to the arguments and the environment of vLLM. Imports no vllm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server import machine
from server.engine.checkpoint import served_names
from server.engine.device import Device
from server.engine.processes import logging_to_file
from server.engine.sizing import Plan, model_facts, pixels_in_context, plan
from server.families.family import Family
from server.settings import Settings

ON_ONE_NODE = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo", "VLLM_HOST_IP": "127.0.0.1"}
"""Keeps the ports of the engine's own groups, which ask nobody for a key and die of many connections, on loopback. By
themselves they open at the address that the host's name has."""
CPU_KV_CACHE_GIB = 2
CPU_MAX_SEQS = 64
CPU_MAX_CONTEXT = 32_768
SMALL = {"width": 64, "height": 64}
SIZED = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl"})
"""Model types whose memory `sizing.py` can add up; the engine's own defaults hold for others."""


@dataclass(frozen=True, slots=True)
class VllmArguments:
    """What the engine is started with, and what a person is told about it."""

    arguments: dict[str, Any]
    max_pixels: int
    """The most pixels of a picture that the model and its context have room for."""
    notes: tuple[str, ...]


def vllm_arguments(settings: Settings, folder: Path, device: Device, family: Family) -> VllmArguments:
    """Defaults for the device, overridden by what the operator set."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    pictures, clips = settings.max_pictures + settings.max_pages, settings.max_clips if family.takes_clips else 0
    sized = _plan(config, device, settings, family, clips)
    if device.kind == "cpu":
        defaults = _cpu_defaults(config, pictures, clips, family)
    elif sized:
        defaults = _gpu_defaults(sized, pictures, clips)
    else:
        defaults = {"limit_mm_per_prompt": {"image": pictures, "video": clips}}
    arguments = {
        "model": str(folder),
        # Otherwise the folder's path would be the model's name in /metrics.
        "served_model_name": served_names(settings.model, settings.served_model_name),
        # The front end hands over finished patches; a second cache of them would only be searched in vain.
        "mm_processor_cache_gb": 0,
        # Of white space between values a model can make without end; and see `inputs.GUIDANCE`.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        **_traces(settings),
        **defaults,
        **_set_by_operator(settings),
        **settings.engine_args,
    }
    # The engine keeps room for one picture of the model's own size, so that is the most.
    pixels_per_token = _pixels_per_token(family)
    most = pixels_in_context(family.max_pixels, arguments.get("max_model_len"), pixels_per_token)
    return VllmArguments(arguments, most, _notes(sized, device))


def _traces(settings: Settings) -> dict[str, Any]:
    if settings.otlp_endpoint is None:
        return {}
    return {"otlp_traces_endpoint": f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"}


def engine_environment(settings: Settings, device: Device, log_file: Path, scratch: Path) -> dict[str, str]:
    """What vLLM reads from its environment, in this process and in its own ones.

    `scratch` is a folder for its sockets, with a short name: the path of a socket has at most 107 bytes.
    """
    environment = {
        **logging_to_file(log_file, scratch),
        "VLLM_RPC_BASE_PATH": str(scratch),
        "VLLM_NO_USAGE_STATS": "1",
        # vLLM would speak gRPC; one collector's address has to do for both.
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
    }
    if settings.nnodes == 1:
        environment |= ON_ONE_NODE
    if device.kind == "cpu":
        # The CPU wheel installs no distribution called vllm, from which vLLM would see what it is.
        environment["VLLM_TARGET_DEVICE"] = "cpu"
        # vLLM's sampler compiles itself even in eager mode: the first request would wait 10 s for a C++ compiler.
        environment["TORCH_COMPILE_DISABLE"] = "1"
        # vLLM takes a step of over 300 s for a death; a full page through 7B on two cores is only slow.
        environment["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] = "3600"
        # As many threads as vLLM's own binding gives its worker: one core is left for the front end.
        environment["OMP_NUM_THREADS"] = str(max(1, machine.cores() - 1))
        environment["VLLM_CPU_KVCACHE_SPACE"] = str(settings.kv_cache_gib or CPU_KV_CACHE_GIB)
    return environment


def _plan(config: Mapping[str, Any], device: Device, settings: Settings, family: Family, clips: int) -> Plan | None:
    """The sums for a GPU of known memory and a model whose architecture they know; else None."""
    known = config["model_type"] in SIZED and device.kind != "cpu"
    if not known or not device.memory_gib:
        return None
    gpus = settings.tensor_parallel_size * settings.pipeline_parallel_size
    facts = model_facts(config, family.max_pixels, _pixels_per_token(family))
    return plan(facts, device.memory_gib, gpus, clips=clips > 0)


def _pixels_per_token(family: Family) -> int:
    return (family.patch_size * family.merge_size) ** 2


def _gpu_defaults(sized: Plan, pictures: int, clips: int) -> dict[str, Any]:
    return {
        "quantization": sized.quantization,
        "max_model_len": sized.max_model_len,
        "max_num_batched_tokens": sized.max_num_batched_tokens,
        "max_num_seqs": sized.max_num_seqs,
        "gpu_memory_utilization": sized.gpu_memory_utilization,
        # For a clip vLLM keeps room for as many tokens as the context has. Without that it still takes clips of as many
        # as a largest picture has: how many there may be is for the front end to say.
        "limit_mm_per_prompt": {"image": pictures, "video": clips if sized.clip_room else 0},
    }


def _cpu_defaults(config: Mapping[str, Any], pictures: int, clips: int, family: Family) -> dict[str, Any]:
    """Eager mode saves minutes of compilation; profiling a largest picture on a CPU would cost as much."""
    # InternVL's own checkpoints say llm_config.
    context = (config.get("text_config") or config.get("llm_config") or config).get("max_position_embeddings")
    # Nothing is profiled here, so sizes serve to warm up a processor that pictures in patches never meet. Where it cuts
    # them itself, its largest picture also says how many tokens there must be room for.
    size = {} if family.patch_size == 1 else SMALL
    return {
        "enforce_eager": True,
        "skip_mm_profiling": True,
        "max_num_seqs": CPU_MAX_SEQS,
        **({"max_model_len": min(context, CPU_MAX_CONTEXT)} if context else {}),
        "limit_mm_per_prompt": {
            "image": {"count": pictures, **size},
            "video": {"count": clips, **({"num_frames": 2} if size else {}), **size},
        },
    }


NAMED = (
    "dtype",
    "quantization",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "nnodes",
    "node_rank",
    "master_addr",
    "master_port",
    "distributed_executor_backend",
    "enforce_eager",
)
"""Settings that are vLLM arguments of the same name; None leaves the default."""


def _set_by_operator(settings: Settings) -> dict[str, Any]:
    return {name: value for name in NAMED if (value := getattr(settings, name)) is not None}


def _notes(sized: Plan | None, device: Device) -> tuple[str, ...]:
    if sized is None:
        return (f"Engine on {device.name}",)
    warning = () if sized.fits else ("This model does not fit this GPU by the sums above; trying all the same.",)
    return (f"Engine on {device.name}", *sized.arithmetic, *warning)
