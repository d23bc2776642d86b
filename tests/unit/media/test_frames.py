"""Frames are sampled and sized as by qwen-vl-utils, to the last bit."""

import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from server.core import FrameChoice, PixelBudget
from server.errors import BadRequest, InvalidVideo
from server.media.frames import ClipLimits, check_choice, frame_size, listed_frame_size, sampled_frames

QWEN = ClipLimits()
NO_CHOICE, NO_BUDGET = FrameChoice(), PixelBudget()
TOTALS = st.integers(2, 400) | st.integers(2, 40_000)
VIDEO_FPS = st.sampled_from([10.0, 23.976, 24.0, 25.0, 30000 / 1001, 30.0, 50.0, 60.0]) | st.floats(0.05, 1000)
SECONDS = st.none() | st.floats(-5, 700) | st.integers(0, 20)
SIDES = st.integers(1, 6000)
PIXELS = st.none() | st.integers(1, 16384 * 784) | st.integers(1, 1000 * 784)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    return pytest.importorskip("qwen_vl_utils.vision_process")


def as_element(choice: FrameChoice, budget: PixelBudget = NO_BUDGET) -> dict[str, Any]:
    """The controls as qwen-vl-utils takes them: absent where None."""
    names = ("fps", "nframes", "min_frames", "max_frames", "video_start", "video_end", "total_pixels", "sample_fps")
    sizes = ("min_pixels", "max_pixels", "resized_height", "resized_width")
    element = {name: getattr(choice, name) for name in names} | {name: getattr(budget, name) for name in sizes}
    return {name: value for name, value in element.items() if value is not None}


# ---- Which frames -----------------------------------------------------------------------------------


@st.composite
def choices(draw: st.DrawFn) -> FrameChoice:
    start, end = draw(SECONDS), draw(SECONDS)
    if draw(st.booleans()):
        return FrameChoice(nframes=draw(st.integers(2, 768)), video_start=start, video_end=end)
    least, most = draw(st.none() | st.integers(1, 768)), draw(st.none() | st.integers(2, 768))
    fps = draw(st.none() | st.floats(0.001, 120) | st.sampled_from([0.5, 1, 2.0, 3, 4]))
    return FrameChoice(fps=fps, min_frames=least, max_frames=most, video_start=start, video_end=end)


def is_refused(choice: FrameChoice) -> bool:
    try:
        check_choice(choice, NO_BUDGET, QWEN)
    except BadRequest:
        return True
    return False


@settings(max_examples=600, deadline=None)
@given(TOTALS, VIDEO_FPS, choices())
def test_frames_are_those_of_qwen_vl_utils(
    reference: ModuleType, total: int, video_fps: float, choice: FrameChoice
) -> None:
    torch = pytest.importorskip("torch")
    assume(not is_refused(choice))
    element = as_element(choice)
    try:
        start, end, count = reference.calculate_video_frame_range(element, total, video_fps)
        n = reference.smart_nframes(element, count, video_fps)
    except ValueError:
        with pytest.raises(BadRequest):
            sampled_frames(total, video_fps, choice, QWEN)
        return
    expected = torch.linspace(start, end, n).round().long().tolist()
    assert sampled_frames(total, video_fps, choice, QWEN) == (expected, n / max(count, 1e-6) * video_fps)
    assert expected == sorted(expected)
    assert len(expected) % 2 == 0


@settings(max_examples=200, deadline=None)
@given(TOTALS, VIDEO_FPS, choices(), st.integers(2, 64))
def test_no_choice_passes_the_operators_ceiling_of_frames(
    total: int, video_fps: float, choice: FrameChoice, most: int
) -> None:
    limits = ClipLimits(max_frames=most, hard_max_frames=most, min_frames=2)
    try:
        frames, _ = sampled_frames(total, video_fps, choice, limits)
    except BadRequest:
        return
    assert 2 <= len(frames) <= most
    assert 0 <= frames[0] < frames[-1] < total


def test_the_models_defaults_are_the_operators_to_set() -> None:
    limits = ClipLimits(fps=1.0, min_frames=2, max_frames=6)
    assert sampled_frames(80, 10.0, NO_CHOICE, limits)[0] == [0, 16, 32, 47, 63, 79]
    assert len(sampled_frames(30, 10.0, NO_CHOICE, limits)[0]) == 2


def test_half_a_frame_rounds_to_even() -> None:
    assert sampled_frames(4, 1.0, FrameChoice(nframes=4), QWEN)[0] == [0, 1, 2, 3]
    assert sampled_frames(10, 1.0, FrameChoice(nframes=6), QWEN)[0] == [0, 2, 4, 5, 7, 9]


@pytest.mark.parametrize(
    "choice", [NO_CHOICE, FrameChoice(nframes=2), FrameChoice(fps=0.1), FrameChoice(video_start=3.0, video_end=4.0)]
)
def test_a_clip_of_one_frame_shows_it_twice(choice: FrameChoice) -> None:
    assert sampled_frames(1, 30.0, choice, QWEN, param="here") == ([0, 0], 30.0)


def test_one_frame_is_never_four() -> None:
    with pytest.raises(BadRequest, match=r"^nframes is 4"):
        sampled_frames(1, 30.0, FrameChoice(nframes=4), QWEN, param="here")


@pytest.mark.parametrize(
    ("choice", "field"),
    [
        (FrameChoice(nframes=22), "nframes"),
        (FrameChoice(nframes=8, video_start=1.5), "nframes"),
        (FrameChoice(video_start=2.0), "video_start"),
        (FrameChoice(video_start=1.9), "video_start"),
        (FrameChoice(video_end=0.05), "video_end"),
        (FrameChoice(video_start=1.01, video_end=1.09), "video_start"),
    ],
)
def test_a_clip_too_short_for_the_choice_names_the_field(choice: FrameChoice, field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        sampled_frames(20, 10.0, choice, QWEN)
    assert caught.value.param == field
    assert caught.value.message.startswith(field)
    with pytest.raises(BadRequest) as caught:
        sampled_frames(20, 10.0, choice, QWEN, param="messages[0].content[1]")
    assert caught.value.param == "messages[0].content[1]"


# ---- What no clip could satisfy ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "field"),
    [
        (FrameChoice(fps=2, nframes=8), "fps"),
        (FrameChoice(fps=0), "fps"),
        (FrameChoice(fps=-1.0), "fps"),
        (FrameChoice(fps=math.nan), "fps"),
        (FrameChoice(fps=math.inf), "fps"),
        (FrameChoice(fps=10**400), "fps"),
        (FrameChoice(sample_fps=0.0), "sample_fps"),
        (FrameChoice(sample_fps=math.nan), "sample_fps"),
        (FrameChoice(nframes=1), "nframes"),
        (FrameChoice(nframes=-4), "nframes"),
        (FrameChoice(nframes=769), "nframes"),
        (FrameChoice(nframes=10**5000), "nframes"),
        (FrameChoice(min_frames=0), "min_frames"),
        (FrameChoice(min_frames=769), "min_frames"),
        (FrameChoice(max_frames=1), "max_frames"),
        (FrameChoice(min_frames=9, max_frames=8), "min_frames"),
        (FrameChoice(total_pixels=0), "total_pixels"),
        (FrameChoice(video_start=math.nan), "video_start"),
        (FrameChoice(video_end=math.inf), "video_end"),
        (FrameChoice(video_end=0), "video_end"),
        (FrameChoice(video_start=3.0, video_end=3.0), "video_start"),
        (FrameChoice(video_start=4, video_end=3), "video_start"),
    ],
)
def test_an_impossible_choice_names_the_field(choice: FrameChoice, field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_choice(choice, NO_BUDGET, QWEN)
    assert caught.value.param == field
    assert caught.value.message.startswith(field)
    assert len(caught.value.message) < 200
    with pytest.raises(BadRequest) as caught:
        sampled_frames(100, 25.0, choice, QWEN, param="messages[0].content[1]")
    assert caught.value.param == "messages[0].content[1]"
    assert caught.value.message.startswith(field)


@pytest.mark.parametrize(
    "choice",
    [
        FrameChoice(),
        FrameChoice(fps=1e308),
        FrameChoice(fps=1e-300),
        FrameChoice(nframes=3),
        FrameChoice(max_frames=10**9, total_pixels=10**30),
        FrameChoice(video_start=-3.0, video_end=1e300),
    ],
)
def test_a_bound_out_of_reach_is_none(choice: FrameChoice) -> None:
    check_choice(choice, NO_BUDGET, QWEN)
    frames, fps = sampled_frames(100, 25.0, choice, QWEN)
    assert 2 <= len(frames) <= 100
    assert fps > 0
    assert frame_size(480, 640, len(frames), NO_BUDGET, choice, QWEN)


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        (PixelBudget(min_pixels=0), "min_pixels"),
        (PixelBudget(max_pixels=783), "max_pixels"),
        (PixelBudget(max_pixels=100_000), "max_pixels"),  # below the default minimum, which fails there too
        (PixelBudget(min_pixels=200_000, max_pixels=150_000), "min_pixels"),
        (PixelBudget(min_pixels=10**8), "min_pixels"),
        (PixelBudget(resized_height=280), "resized_height"),
        (PixelBudget(resized_height=10**5000, resized_width=10), "resized_height"),
    ],
)
def test_an_impossible_budget_names_the_field(budget: PixelBudget, field: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: check_choice(NO_CHOICE, budget, QWEN, param="here"),
        lambda: frame_size(480, 640, 4, budget, NO_CHOICE, QWEN, param="here"),
        lambda: listed_frame_size([(480, 640)], budget, NO_CHOICE, QWEN, param="here"),
    ]
    for call in calls:
        with pytest.raises(BadRequest) as caught:
            call()
        assert caught.value.param == "here"
        assert caught.value.message.startswith(field)


def test_a_minimum_above_the_models_maximum_lifts_it() -> None:
    budget = PixelBudget(min_pixels=1000 * 784)
    check_choice(NO_CHOICE, budget, QWEN)
    height, width = frame_size(1080, 1920, 4, budget, NO_CHOICE, QWEN)
    assert 1000 * 784 <= height * width <= 1050 * 784


@pytest.mark.parametrize(
    "wrong",
    [
        {"frame_min_pixels": 0},
        {"frame_min_pixels": 800 * 784},
        {"hard_max_pixels": 700 * 784},
        {"frame_min_pixels": 1, "frame_max_pixels": 783},
        {"total_pixels": 10**9},
        {"total_pixels": 0},
        {"min_frames": 0},
        {"min_frames": 769},
        {"max_frames": 1, "min_frames": 1},
        {"hard_max_frames": 100},
        {"fps": 0.0},
        {"fps": math.nan},
        {"max_seconds": 0.0},
        {"max_source_frames": 1},
        {"max_source_pixels": 0},
        {"factor": 0},
    ],
)
def test_limits_that_contradict_each_other_are_a_mistake_of_the_operator(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|more than|less than"):
        ClipLimits(**wrong)


# ---- How large --------------------------------------------------------------------------------------


class Sized:
    """What remains of resized frames."""

    def __init__(self, size: list[int]) -> None:
        self.size = tuple(size)

    def float(self) -> "Sized":
        return self


@pytest.fixture(scope="module")
def fetched_size(reference: ModuleType) -> Iterator[Callable[[dict[str, Any], int, int, int], tuple[int, int]]]:
    """The size to which qwen-vl-utils resizes n frames of a height and width, without the work of resizing them."""
    torch = pytest.importorskip("torch")
    video = torch.zeros(1, dtype=torch.uint8)

    def read(element: dict[str, Any]) -> tuple[object, dict[str, object], float]:
        return element["frames"], {}, 1.0

    def size_only(_frames: object, size: list[int], **_: object) -> Sized:
        return Sized(size)

    def fetch(element: dict[str, Any], n: int, height: int, width: int) -> tuple[int, int]:
        frames = video.expand(n, 3, height, width)
        fetched: Sized = reference.fetch_video({**element, "video": "clip", "frames": frames})
        return fetched.size

    with (
        mock.patch.object(reference, "get_video_reader_backend", return_value="torchvision"),
        mock.patch.dict(reference.VIDEO_READER_BACKENDS, torchvision=read),
        mock.patch.object(reference.transforms.functional, "resize", size_only),
    ):
        yield fetch


@settings(max_examples=600, deadline=None)
@given(SIDES, SIDES, st.integers(1, 384).map(lambda n: 2 * n), PIXELS, PIXELS, st.none() | st.integers(1, 2 * 10**8))
def test_sizes_are_those_of_qwen_vl_utils(
    fetched_size: Callable[..., tuple[int, int]],
    height: int,
    width: int,
    n: int,
    low: int | None,
    high: int | None,
    total: int | None,
) -> None:
    limits = ClipLimits(hard_total_pixels=10**12)
    budget, choice = PixelBudget(low, high), FrameChoice(total_pixels=total)
    try:
        expected = fetched_size(as_element(choice, budget), n, height, width)
    except (ValueError, AssertionError):  # a ratio over 200, or a minimum over the maximum
        with pytest.raises(BadRequest):
            frame_size(height, width, n, budget, choice, limits)
        return
    try:
        size = frame_size(height, width, n, budget, choice, limits)
    except BadRequest:  # less than one block, where qwen-vl-utils goes on with a side of 0
        assert 0 in expected
        return
    if 0 in expected:
        assert min(size) == 28
    elif expected[0] * expected[1] > limits.hard_max_pixels:  # rounded up past the ceiling there
        assert size[0] * size[1] <= limits.hard_max_pixels
    else:
        assert size == expected


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_an_asked_size_is_that_of_qwen_vl_utils_whatever_the_clip(
    fetched_size: Callable[..., tuple[int, int]], height: int, width: int
) -> None:
    budget = PixelBudget(min_pixels=200_000, max_pixels=300_000, resized_height=height, resized_width=width)
    limits = ClipLimits(hard_total_pixels=10**12)
    try:
        expected = fetched_size(as_element(NO_CHOICE, budget), 4, 100, 100)
    except ValueError:
        with pytest.raises(BadRequest, match="must not differ"):
            frame_size(100, 100, 4, budget, NO_CHOICE, limits)
        return
    size = frame_size(100, 100, 4, budget, NO_CHOICE, limits)
    assert size == expected or (0 in expected and min(size) == 28)


@settings(max_examples=300, deadline=None)
@given(SIDES, SIDES, st.integers(1, 384).map(lambda n: 2 * n), PIXELS, PIXELS, st.none() | SIDES, st.none() | SIDES)
def test_no_answer_passes_the_operators_ceilings(
    height: int,
    width: int,
    n: int,
    low: int | None,
    high: int | None,
    asked_height: int | None,
    asked_width: int | None,
) -> None:
    limits = ClipLimits(hard_max_pixels=1000 * 784, total_pixels=20_000 * 784, hard_total_pixels=32_768 * 784)
    budget = PixelBudget(low, high, asked_height, asked_width)
    try:
        size = frame_size(height, width, n, budget, NO_CHOICE, limits)
    except BadRequest:
        return
    assert size[0] * size[1] <= limits.hard_max_pixels
    assert n // 2 * (size[0] // 28) * (size[1] // 28) <= 32_768
    assert all(side >= 28 and side % 28 == 0 for side in size)


def test_the_example_of_the_model_card() -> None:
    assert frame_size(405, 720, 20, PixelBudget(max_pixels=360 * 420), NO_CHOICE, QWEN) == (280, 504)


def test_frames_share_the_total() -> None:
    choice = FrameChoice(total_pixels=20_480 * 784)
    assert frame_size(1080, 1920, 8, NO_BUDGET, choice, QWEN) == (560, 1008)  # 720 of 768 tokens
    height, width = frame_size(1080, 1920, 128, NO_BUDGET, choice, QWEN)
    assert 280 * 784 < height * width <= 320 * 784
    height, width = frame_size(1080, 1920, 768, NO_BUDGET, choice, QWEN)  # 53 tokens each would be below the minimum
    assert 100 * 784 < height * width <= 134.4 * 784


def test_a_clip_over_the_ceiling_tells_what_it_would_take() -> None:
    limits = ClipLimits(total_pixels=1000 * 784, hard_total_pixels=1000 * 784)
    with pytest.raises(InvalidVideo, match=r"48 frames of 420x224 pixels, 2880 tokens, more than the 1000") as caught:
        frame_size(1080, 1920, 48, NO_BUDGET, NO_CHOICE, limits, param="here")
    assert (caught.value.code, caught.value.param) == ("video_too_large", "here")


def test_a_narrow_clip_is_refused() -> None:
    assert frame_size(10, 2000, 4, NO_BUDGET, NO_CHOICE, QWEN)
    with pytest.raises(InvalidVideo) as caught:
        frame_size(10, 2001, 4, NO_BUDGET, NO_CHOICE, QWEN, param="here")
    assert (caught.value.code, caught.value.param) == ("invalid_video", "here")
    assert frame_size(10, 2001, 4, PixelBudget(resized_height=280, resized_width=280), NO_CHOICE, QWEN) == (280, 280)


# ---- Lists of frames --------------------------------------------------------------------------------


class Flat(Image.Image):
    """A picture of a size and nothing else, so that resizing it costs nothing."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self._size = (width, height)
        self._mode = "RGB"

    def convert(self, *_: object, **__: object) -> "Flat":
        return self

    def resize(self, size: tuple[int, int], *_: object, **__: object) -> Any:
        return np.broadcast_to(np.zeros(1, np.uint8), (size[1], size[0], 3))


@pytest.fixture(scope="module")
def fetched_list(
    reference: ModuleType, fetched_size: object
) -> Callable[[dict[str, Any], list[tuple[int, int]], int], tuple[int, int]]:
    """The size to which qwen-vl-utils resizes a list of pictures whose first step snaps to a factor."""
    whole = reference.fetch_image

    def fetch(element: dict[str, Any], sizes: list[tuple[int, int]], factor: int) -> tuple[int, int]:
        with mock.patch.object(reference, "fetch_image", lambda one, _: whole(one, factor // 2)):
            fetched: Sized = reference.fetch_video({**element, "video": [Flat(*size) for size in sizes]})
        return fetched.size

    return fetch


MODEST_SIDES, MODEST = st.integers(1, 600), st.none() | st.integers(1, 500 * 784)


@settings(max_examples=600, deadline=None)
@given(MODEST_SIDES, MODEST_SIDES, st.integers(1, 3), MODEST, MODEST, st.none() | st.integers(1, 8000 * 784))
def test_lists_are_sized_as_by_qwen_vl_utils_but_for_its_56(
    fetched_list: Callable[..., tuple[int, int]],
    height: int,
    width: int,
    count: int,
    low: int | None,
    high: int | None,
    total: int | None,
) -> None:
    budget, choice = PixelBudget(low, high), FrameChoice(total_pixels=total)
    sizes = [(height, width)] * count
    try:
        expected = fetched_list(as_element(choice, budget), sizes, 28)
    except (ValueError, AssertionError):  # a ratio over 200, or a minimum over the maximum
        with pytest.raises(BadRequest):
            listed_frame_size(sizes, budget, choice, QWEN)
        return
    except ZeroDivisionError:  # a side of 0 after the first step
        expected = (0, 0)
    try:
        size = listed_frame_size(sizes, budget, choice, QWEN)
    except BadRequest:
        assert 0 in expected
        return
    assert size == expected or (0 in expected and min(size) >= 28)


def test_the_reference_snaps_lists_to_56_by_mistake(fetched_list: Callable[..., tuple[int, int]]) -> None:
    sizes = [(420, 700)] * 4
    assert listed_frame_size(sizes, NO_BUDGET, NO_CHOICE, QWEN) == fetched_list({}, sizes, 28) == (420, 700)
    assert fetched_list({}, sizes, 56) == (448, 672)


def test_pictures_that_fit_the_same_size_pass(fetched_list: Callable[..., tuple[int, int]]) -> None:
    sizes = [(405, 720), (400, 722)]
    assert listed_frame_size(sizes, NO_BUDGET, NO_CHOICE, QWEN) == fetched_list({}, sizes, 28)


def test_pictures_of_other_sizes_are_refused_there_and_here(fetched_list: Callable[..., tuple[int, int]]) -> None:
    sizes = [(405, 720), (405, 720), (720, 405)]
    with pytest.raises(RuntimeError, match="equal size"):
        fetched_list({}, sizes, 28)
    with pytest.raises(InvalidVideo, match="Frame 3 of the clip is 405x720 pixels and the first is 720x405") as caught:
        listed_frame_size(sizes, NO_BUDGET, NO_CHOICE, QWEN, param="here")
    assert (caught.value.code, caught.value.param) == ("invalid_video", "here")
    asked = PixelBudget(resized_height=280, resized_width=420)
    assert listed_frame_size(sizes, asked, NO_CHOICE, QWEN) == fetched_list(as_element(NO_CHOICE, asked), sizes, 28)


def test_an_odd_list_counts_the_repeated_frame() -> None:
    choice = FrameChoice(total_pixels=800 * 784)
    three = listed_frame_size([(1080, 1920)] * 3, NO_BUDGET, choice, QWEN)
    assert three == listed_frame_size([(1080, 1920)] * 4, NO_BUDGET, choice, QWEN)
    assert three != listed_frame_size([(1080, 1920)] * 2, NO_BUDGET, choice, QWEN)


@pytest.mark.parametrize("count", [0, 769])
def test_a_list_is_neither_empty_nor_endless(count: int) -> None:
    with pytest.raises(InvalidVideo, match=rf"{count} frames: send 1 to 768"):
        listed_frame_size([(28, 28)] * count, NO_BUDGET, NO_CHOICE, QWEN)


def test_a_narrow_picture_in_a_list_is_refused() -> None:
    with pytest.raises(InvalidVideo, match="200 times"):
        listed_frame_size([(10, 2001)], NO_BUDGET, NO_CHOICE, QWEN)
