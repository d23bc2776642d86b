"""What fits on which GPU: the sums for AIN, and what must hold for every size."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engine.sizing import (
    GIB,
    PIXELS_PER_TOKEN,
    UTILIZATION,
    Plan,
    count_parameters,
    model_facts,
    plan,
    weight_bytes,
)

AIN = {
    "model_type": "qwen2_vl",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "hidden_size": 3584,
        "mlp_ratio": 4,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "in_channels": 3,
    },
}
"""AIN-7B's config.json, as far as sizes depend on it."""
MAX_PIXELS = 12_845_056
FACTS = model_facts(AIN, MAX_PIXELS)


def test_ains_parameters_are_counted_to_the_last_one() -> None:
    assert count_parameters(AIN) == FACTS.parameters == 8_291_375_616


def test_ains_weights_and_kv_cache() -> None:
    assert weight_bytes(FACTS, None) / GIB == pytest.approx(15.44, abs=0.005)
    assert FACTS.kv_bytes_per_token == 57_344
    assert FACTS.kv_bytes_per_token * 32_768 / GIB == 1.75


def test_fp8_leaves_embeddings_and_head_alone() -> None:
    untouched = 2 * 152_064 * 3584
    assert FACTS.embedding_parameters == untouched
    assert weight_bytes(FACTS, "fp8") == 2 * untouched + (FACTS.parameters - untouched)


def test_a_config_with_a_text_part_gives_the_same_facts() -> None:
    """The form in which newer releases of transformers write it."""
    own = {"model_type", "vision_config", "tie_word_embeddings"}
    text = {name: value for name, value in AIN.items() if name not in own}
    nested = {name: AIN[name] for name in own} | {"text_config": text}
    assert model_facts(nested, MAX_PIXELS) == FACTS


def test_tied_embeddings_count_once() -> None:
    tied = model_facts(AIN | {"tie_word_embeddings": True}, MAX_PIXELS)
    assert FACTS.parameters - tied.parameters == 152_064 * 3584


PLANS = {
    # GiB: (quantization, context, whether it fits)
    16: ("fp8", 16_384, True),
    22.5: ("fp8", 32_768, True),
    24: (None, 32_768, True),
    48: (None, 32_768, True),
    80: (None, 32_768, True),
    141: (None, 32_768, True),
}


@pytest.mark.parametrize("memory", PLANS)
def test_ains_plan_for_common_gpus(memory: float) -> None:
    made = plan(FACTS, memory)
    assert (made.quantization, made.max_model_len, made.fits) == PLANS[memory]


@pytest.mark.parametrize(("memory", "room"), [(16, True), (22.5, True), (24, False), (32, True), (80, True)])
def test_room_for_a_clip_as_long_as_the_context_yields_to_two_byte_weights(memory: float, room: bool) -> None:
    """On 24 GiB only one of the two fits; there a clip can still be as long as a largest picture."""
    assert plan(FACTS, memory).clip_room is room
    without = plan(FACTS, memory, clips=False)
    assert not without.clip_room
    assert (without.quantization, without.max_model_len) == PLANS.get(memory, (None, 32_768, True))[:2]


def test_a_clip_costs_memory_that_a_picture_does_not() -> None:
    with_clips, without = plan(FACTS, 80), plan(FACTS, 80, clips=False)
    assert "clip of 32,768 tokens" in with_clips.arithmetic[2]
    assert "picture of 12,845,056 pixels" in without.arithmetic[2]
    # The vision tower's values, 32,768 instead of 16,384 tokens of four patches each.
    assert kv_tokens(without) - kv_tokens(with_clips) == pytest.approx(16_384 * 4 * 1280 * 16 * 2 / 57_344, abs=1)


def test_heads_need_not_share_out_the_hidden_size() -> None:
    """As in Qwen3-VL-4B: 32 heads of 128 with a hidden size of 2560."""
    wide = model_facts(AIN | {"hidden_size": 2560, "num_attention_heads": 32, "head_dim": 128}, MAX_PIXELS)
    assert wide.kv_bytes_per_token == 2 * 28 * 4 * 128 * 2
    narrow = model_facts(AIN | {"hidden_size": 2560, "num_attention_heads": 32}, MAX_PIXELS)
    assert wide.parameters > narrow.parameters


@pytest.mark.parametrize(("memory", "batch"), [(16, 4096), (24, 4096), (48, 4096), (80, 8192), (141, 8192)])
def test_big_gpus_take_bigger_steps(memory: int, batch: int) -> None:
    assert plan(FACTS, memory).max_num_batched_tokens == batch


def test_where_nothing_fits_the_plan_says_so_and_tries_the_least() -> None:
    made = plan(FACTS, 8)
    assert not made.fits
    assert (made.quantization, made.max_model_len) == ("fp8", 4096)


def test_the_arithmetic_is_shown_a_line_each() -> None:
    lines = plan(FACTS, 80).arithmetic
    assert [line.split()[0] for line in lines] == ["memory", "weights", "one", "reserve", "KV"]
    assert "80.0 GiB x 0.92 = 73.6 GiB usable" in lines[0]
    assert "15.4 GiB  8,291,375,616 parameters, 16-bit" in lines[1]
    assert "57,344 bytes a token" in lines[4]
    assert "contexts of 32,768" in lines[4]


memories = st.floats(8, 288)


def kv_tokens(made: Plan) -> int:
    """Read from the line that a person sees."""
    return int(made.arithmetic[-1].rsplit(" = ", 1)[1].split()[0].replace(",", ""))


@given(memories)
def test_a_plan_that_fits_has_room_for_one_full_context(memory: float) -> None:
    made = plan(FACTS, memory)
    assert not made.fits or kv_tokens(made) >= made.max_model_len


@given(memories)
def test_a_largest_picture_leaves_room_for_a_question(memory: float) -> None:
    made = plan(FACTS, memory)
    assert PIXELS_PER_TOKEN <= made.max_pixels <= MAX_PIXELS
    assert made.max_pixels / PIXELS_PER_TOKEN <= made.max_model_len - 1024


@given(memories)
def test_limits_are_such_that_an_engine_takes_them(memory: float) -> None:
    made = plan(FACTS, memory)
    assert 4096 <= made.max_model_len <= 32_768
    assert 8 <= made.max_num_seqs <= 256
    assert 2048 <= made.max_num_batched_tokens <= 8192
    assert made.gpu_memory_utilization == UTILIZATION


@given(memories, memories)
def test_more_memory_is_never_worse(one: float, other: float) -> None:
    less, more = sorted([one, other])
    small, large = plan(FACTS, less), plan(FACTS, more)
    assert small.fits <= large.fits
    if small.fits:
        assert (large.quantization is None) >= (small.quantization is None)
        if large.quantization == small.quantization:
            assert large.max_model_len >= small.max_model_len
            assert large.max_pixels >= small.max_pixels


def test_more_gpus_are_never_worse() -> None:
    for fewer, more in itertools.pairwise(plan(FACTS, 16, gpus) for gpus in (1, 2, 4, 8)):
        assert fewer.fits <= more.fits
        assert kv_tokens(fewer) <= kv_tokens(more)
    assert plan(FACTS, 24, 2).quantization is None


def test_a_small_model_has_its_own_context_and_not_ains() -> None:
    small = replace(FACTS, parameters=5_000_000, embedding_parameters=200_000, max_context=4096, max_pixels=200_704)
    made = plan(small, 24)
    assert (made.quantization, made.max_model_len, made.max_pixels, made.fits) == (None, 4096, 200_704, True)
