"""Target sizes and patches are those of qwen-vl-utils and of transformers' image processor."""

from types import ModuleType

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.core import PixelBudget
from server.errors import BadRequest, InvalidImage
from server.media.pixels import (
    FACTOR,
    PixelLimits,
    check_budget,
    picture_tokens,
    smart_resize,
    target_size,
)

AIN = PixelLimits()
SIDES = st.integers(1, 20_000)
BUDGETS = st.integers(1, 16_384 * 784)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return pytest.importorskip("qwen_vl_utils.vision_process")


# ---- smart_resize -----------------------------------------------------------------------------------


@settings(max_examples=600, deadline=None)
@given(SIDES, SIDES, BUDGETS, BUDGETS)
def test_smart_resize_is_that_of_qwen_vl_utils(
    reference: ModuleType, height: int, width: int, one: int, other: int
) -> None:
    low, high = sorted((one, other))
    assume(high >= FACTOR**2)
    assume(max(height, width) <= 200 * min(height, width))
    expected = reference.smart_resize(height, width, FACTOR, low, high)
    size = smart_resize(height, width, min_pixels=low, max_pixels=high)
    if 0 in expected:
        assert min(size) == FACTOR
        assert size[0] * size[1] <= high
    else:
        assert size == expected


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000))
def test_what_has_been_resized_stays_as_it_is(height: int, width: int) -> None:
    assume(max(height, width) <= 200 * min(height, width))
    size = target_size(height, width, PixelBudget(), AIN)
    assume(max(size) <= 200 * min(size))
    assert target_size(*size, PixelBudget(), AIN) == size


@pytest.mark.parametrize(
    ("width", "height", "max_pixels", "tokens"),
    [
        (1920, 1080, None, 2691),
        (1920, 1080, 1280 * 784, 1222),
        (2480, 3508, None, 11125),
        (2480, 3508, 1280 * 784, 1260),
        (1654, 2339, None, 4956),
        (720, 405, None, 364),
        (420, 280, None, 150),
    ],
)
def test_token_counts_of_common_pictures(width: int, height: int, max_pixels: int | None, tokens: int) -> None:
    high, wide = target_size(height, width, PixelBudget(max_pixels=max_pixels), AIN)
    assert picture_tokens((1, high // 14, wide // 14)) == tokens


def test_sides_round_half_to_even() -> None:
    assert smart_resize(42, 70, min_pixels=784, max_pixels=10**6) == (56, 56)  # 1.5 -> 2, 2.5 -> 2


def test_a_side_that_would_vanish_keeps_one_block_and_the_budget_holds() -> None:
    assert smart_resize(20, 4000, min_pixels=3136, max_pixels=50_176) == (28, 1792)
    assert smart_resize(4000, 20, min_pixels=3136, max_pixels=50_176) == (1792, 28)


@pytest.mark.parametrize(
    ("height", "width", "low", "high"),
    [(0, 10, 784, 7840), (10, -1, 784, 7840), (10, 10, 7840, 784), (10, 10, 1, 783), (1, 201, 784, 7840)],
)
def test_smart_resize_refuses_the_impossible(height: int, width: int, low: int, high: int) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        smart_resize(height, width, min_pixels=low, max_pixels=high)


# ---- target_size ------------------------------------------------------------------------------------


def test_a_tiny_picture_grows_to_four_tokens() -> None:
    assert target_size(1, 1, PixelBudget(), AIN) == (56, 56)


def test_a_client_may_go_below_the_models_minimum() -> None:
    assert target_size(1, 1, PixelBudget(min_pixels=1), AIN) == (28, 28)


def test_an_asked_size_is_rounded_then_clamped_whatever_the_picture(reference: ModuleType) -> None:
    for height, width in ((280, 420), (281, 435), (1, 1), (10, 1500), (9999, 9999)):
        size = target_size(1000, 50, PixelBudget(resized_height=height, resized_width=width), AIN)
        assert size == reference.smart_resize(height, width, FACTOR)


def test_an_asked_size_wins_over_pixel_limits_and_over_the_models_default_maximum() -> None:
    limits = PixelLimits(max_pixels=1280 * 784)
    budget = PixelBudget(min_pixels=784, max_pixels=7840, resized_height=2240, resized_width=2240)
    assert target_size(10, 10, budget, limits) == (2240, 2240)


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, st.none() | BUDGETS, st.none() | BUDGETS, st.none() | SIDES, st.none() | SIDES)
def test_no_answer_passes_the_operators_ceiling(
    height: int, width: int, low: int | None, high: int | None, asked_height: int | None, asked_width: int | None
) -> None:
    limits = PixelLimits(hard_max_pixels=1500 * 784, max_pixels=1000 * 784)
    try:
        size = target_size(height, width, PixelBudget(low, high, asked_height, asked_width), limits)
    except BadRequest:
        return
    assert size[0] * size[1] <= limits.hard_max_pixels
    assert all(side >= FACTOR and side % FACTOR == 0 for side in size)


@pytest.mark.parametrize("asked", [AIN.hard_max_pixels + 1, 10**12, 10**300])
def test_a_bound_above_the_operators_ceiling_is_honoured_by_the_ceiling(asked: int) -> None:
    size = target_size(10_000, 9_000, PixelBudget(max_pixels=asked), AIN)
    assert size == target_size(10_000, 9_000, PixelBudget(max_pixels=AIN.hard_max_pixels), AIN)


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        (PixelBudget(min_pixels=0), "min_pixels"),
        (PixelBudget(max_pixels=-1), "max_pixels"),
        (PixelBudget(max_pixels=783, min_pixels=1), "max_pixels"),
        (PixelBudget(max_pixels=3135), "max_pixels"),
        (PixelBudget(min_pixels=10**7 * 2), "min_pixels"),
        (PixelBudget(min_pixels=8000, max_pixels=7999), "min_pixels"),
        (PixelBudget(resized_height=280), "resized_height"),
        (PixelBudget(resized_width=280), "resized_width"),
        (PixelBudget(resized_width=280, resized_height=0), "resized_height"),
        (PixelBudget(resized_width=10**5000, resized_height=10**5000), "resized_height"),
        (PixelBudget(resized_width=28, resized_height=28 * 201), "resized_height"),
    ],
)
def test_an_impossible_budget_names_the_field(budget: PixelBudget, field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_budget(budget, AIN)
    assert caught.value.param == field
    assert caught.value.message.startswith(field)
    assert len(caught.value.message) < 200
    with pytest.raises(BadRequest) as caught:
        target_size(100, 100, budget, AIN, param="messages[0].content[1]")
    assert caught.value.param == "messages[0].content[1]"
    assert caught.value.message.startswith(field)


def test_a_minimum_above_a_lowered_default_is_refused() -> None:
    with pytest.raises(BadRequest, match="min_pixels is 2000000, more than the model's max_pixels"):
        check_budget(PixelBudget(min_pixels=2_000_000), PixelLimits(max_pixels=1280 * 784))


def test_a_picture_of_ratio_200_passes_and_201_is_refused() -> None:
    assert target_size(10, 2000, PixelBudget(), AIN) == (28, 1988)
    with pytest.raises(InvalidImage) as caught:
        target_size(10, 2001, PixelBudget(), AIN, param="here")
    assert (caught.value.code, caught.value.param) == ("invalid_image", "here")


@pytest.mark.parametrize(
    ("low", "high", "ceiling"), [(0, 3136, 3136), (3136, 3135, 4000), (1, 783, 784), (3136, 7840, 7839)]
)
def test_limits_that_contradict_each_other_are_a_mistake_of_the_operator(low: int, high: int, ceiling: int) -> None:
    with pytest.raises(ValueError, match="max_pixels"):
        PixelLimits(min_pixels=low, max_pixels=high, hard_max_pixels=ceiling)


# ---- Tokens -----------------------------------------------------------------------------------------


def test_tokens_of_a_grid() -> None:
    assert picture_tokens((1, 4, 6)) == 6
    assert picture_tokens((10, 4, 6)) == 60
