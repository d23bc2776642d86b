"""How much fits: weights, activations and KV cache against a GPU's memory. Pure arithmetic.

The numbers come from the model's config.json, the formulas from the architecture (Qwen2-VL, arXiv 2409.12191, and
transformers' modeling_qwen2_vl.py, whose parameter shapes `count_parameters` adds up).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 1 << 30
UTILIZATION = 0.92
"""Share of a GPU that the engine may fill; the rest is for the driver, CUDA graphs and fragmentation."""
RESERVE_GIB = 1.5
"""Memory that no formula here counts: CUDA context, graphs, NCCL and cuBLAS workspaces (observed 1 to 1.5 GiB)."""
MAX_CONTEXT = 32_768
SMALLEST_CONTEXT = 4_096
ROOM_FOR_TEXT = 1_024
PATCHES_PER_TOKEN = 4
PIXELS_PER_TOKEN = 28 * 28


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the arithmetic needs to know about a model. Bytes are those of two-byte weights."""

    parameters: int
    embedding_parameters: int
    """Token embeddings and output head: never quantised."""
    kv_bytes_per_token: int
    hidden: int
    intermediate: int
    vision_embed: int
    vision_ratio: float
    max_context: int
    max_pixels: int
    pixels_per_token: int = PIXELS_PER_TOKEN


@dataclass(frozen=True, slots=True)
class Plan:
    """Engine defaults for a GPU, and the sums behind them, a line each."""

    quantization: str | None
    max_model_len: int
    max_num_batched_tokens: int
    max_num_seqs: int
    max_pixels: int
    gpu_memory_utilization: float
    clip_room: bool
    """Whether one step has room for a clip as long as the context; else a clip can be as long as a largest picture."""
    arithmetic: tuple[str, ...]
    fits: bool


def model_facts(config: Mapping[str, Any], max_pixels: int, pixels_per_token: int = PIXELS_PER_TOKEN) -> ModelFacts:
    """Read a Qwen-VL config.json, in the flat form of older checkpoints or with a `text_config`."""
    text: Mapping[str, Any] = config.get("text_config") or config
    vision: Mapping[str, Any] = config["vision_config"]
    head = _head_size(text)
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    return ModelFacts(
        parameters=count_parameters(config),
        embedding_parameters=text["vocab_size"] * text["hidden_size"] * (1 if tied else 2),
        kv_bytes_per_token=2 * text["num_hidden_layers"] * text["num_key_value_heads"] * head * 2,
        hidden=text["hidden_size"],
        intermediate=text["intermediate_size"],
        vision_embed=vision.get("embed_dim") or vision["hidden_size"],
        vision_ratio=vision.get("mlp_ratio", 4),
        max_context=min(text.get("max_position_embeddings", MAX_CONTEXT), MAX_CONTEXT),
        max_pixels=max_pixels,
        pixels_per_token=pixels_per_token,
    )


def _head_size(text: Mapping[str, Any]) -> int:
    return int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"])


def count_parameters(config: Mapping[str, Any]) -> int:
    """All parameters of a Qwen2-VL model; AIN-7B has 8,291,375,616."""
    text: Mapping[str, Any] = config.get("text_config") or config
    hidden, ffn = text["hidden_size"], text["intermediate_size"]
    heads, kv = (_head_size(text) * text[name] for name in ("num_attention_heads", "num_key_value_heads"))
    attention = 2 * hidden * heads + heads + 2 * (hidden * kv + kv)  # q and o, q's bias, k and v with biases
    layer = attention + 3 * hidden * ffn + 2 * hidden  # gated feed-forward, two norms
    tied = bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    embeddings = text["vocab_size"] * hidden * (1 if tied else 2)
    return int(
        embeddings + text["num_hidden_layers"] * layer + hidden + _vision_parameters(config["vision_config"], hidden)
    )


def _vision_parameters(vision: Mapping[str, Any], hidden: int) -> int:
    embed = vision.get("embed_dim") or vision["hidden_size"]
    ffn = int(embed * vision.get("mlp_ratio", 4))
    block = 4 * embed * embed + 4 * embed + 2 * embed * ffn + ffn + embed + 4 * embed  # qkv, proj, mlp, two norms
    patch = vision.get("in_channels", 3) * vision.get("temporal_patch_size", 2) * vision.get("patch_size", 14) ** 2
    merged = embed * vision.get("spatial_merge_size", 2) ** 2
    merger = 2 * embed + merged * merged + merged + merged * hidden + hidden
    return int(patch * embed + vision["depth"] * block + merger)


def weight_bytes(facts: ModelFacts, quantization: str | None) -> int:
    """Weights in memory: two bytes each, one for those that fp8 reaches."""
    small = facts.parameters - facts.embedding_parameters if quantization == "fp8" else 0
    return 2 * facts.parameters - small


def activation_bytes(facts: ModelFacts, batched_tokens: int, seen_tokens: int) -> int:
    """Peak of one step in two-byte values: a batch in the gated feed-forward, `seen_tokens` in the vision tower.

    An estimate from above: both peaks are added although they do not coincide.
    """
    text = batched_tokens * (3 * facts.intermediate + 6 * facts.hidden) * 2
    patches = seen_tokens * PATCHES_PER_TOKEN
    vision = int(patches * facts.vision_embed * (2 * facts.vision_ratio + 8) * 2)
    return text + vision


def pixels_in_context(max_pixels: int, context: int | None, pixels_per_token: int = PIXELS_PER_TOKEN) -> int:
    """The model's pixel budget, made smaller where one picture would leave no room for question and answer."""
    if context is None:
        return max_pixels
    return min(max_pixels, max(context - ROOM_FOR_TEXT, context // 2) * pixels_per_token)


def plan(facts: ModelFacts, memory_gib: float, gpus: int = 1, *, clips: bool = True) -> Plan:
    """Choose defaults for GPUs of `memory_gib` each, among which the weights are split; `clips` are shown or not.

    Tried in this order until one full context fits: two-byte weights, fp8 weights, each with a shorter context and
    smaller pictures where it must be, and each of them with room for a clip as long as the context, then without.
    """
    big = memory_gib >= 70
    for quantization in (None, "fp8"):
        for context in _halvings(facts.max_context):
            for clip_room in (True, False) if clips else (False,):
                sums = _Sums(facts, memory_gib, gpus, quantization, context, 8192 if big else 4096, clip_room)
                # Below a full context in two bytes, fp8 loses less than a short context does.
                if sums.kv_tokens >= context and (context == facts.max_context or quantization):
                    return sums.plan(fits=True)
    return _Sums(facts, memory_gib, gpus, "fp8", SMALLEST_CONTEXT, 2048, False).plan(fits=False)


def _halvings(context: int) -> list[int]:
    lengths = [context]
    while lengths[-1] // 2 >= SMALLEST_CONTEXT:
        lengths.append(lengths[-1] // 2)
    return lengths


class _Sums:
    """One candidate, added up."""

    def __init__(
        self,
        facts: ModelFacts,
        memory_gib: float,
        gpus: int,
        quantization: str | None,
        context: int,
        batch: int,
        clip_room: bool,
    ) -> None:
        self.facts, self.memory_gib, self.quantization, self.context, self.batch, self.clip_room = (
            facts, memory_gib, quantization, context, batch, clip_room,
        )  # fmt: skip
        self.max_pixels = pixels_in_context(facts.max_pixels, context, facts.pixels_per_token)
        seen = self.max_pixels // facts.pixels_per_token
        self.usable = int(memory_gib * UTILIZATION * GIB)
        self.weights = weight_bytes(facts, quantization) // gpus
        self.activations = activation_bytes(facts, batch, max(seen, context) if clip_room else seen)
        self.kv = self.usable - self.weights - self.activations - int(RESERVE_GIB * GIB)
        self.kv_tokens = max(0, self.kv * gpus // facts.kv_bytes_per_token)

    def plan(self, *, fits: bool) -> Plan:
        # Sequences of a sixteenth of the context each, between 8 and 256.
        seqs = max(8, min(256, self.kv_tokens // max(1, self.context // 16)))
        return Plan(
            quantization=self.quantization,
            max_model_len=self.context,
            max_num_batched_tokens=self.batch,
            max_num_seqs=seqs,
            max_pixels=self.max_pixels,
            gpu_memory_utilization=UTILIZATION,
            clip_room=self.clip_room,
            arithmetic=self.lines(),
            fits=fits,
        )

    def lines(self) -> tuple[str, ...]:
        kind = "fp8" if self.quantization else "16-bit"
        return (
            f"memory      {self.memory_gib:7.1f} GiB x {UTILIZATION} = {self.usable / GIB:.1f} GiB usable",
            f"weights    -{self.weights / GIB:7.1f} GiB  {self.facts.parameters:,} parameters, {kind}",
            f"one step   -{self.activations / GIB:7.1f} GiB  {self.batch:,} tokens and a "
            + (f"clip of {self.context:,} tokens" if self.clip_room else f"picture of {self.max_pixels:,} pixels"),
            f"reserve    -{RESERVE_GIB:7.1f} GiB  CUDA context, graphs, workspaces",
            f"KV cache   ={self.kv / GIB:7.1f} GiB / {self.facts.kv_bytes_per_token:,} bytes a token = "
            f"{self.kv_tokens:,} tokens, {self.kv_tokens / self.context:.1f} contexts of {self.context:,}",
        )
