"""Wishes for all media of a request, in the spelling of vLLM's clients, and how one wish gives way to another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.core import ClipSource, DocumentSource, FrameChoice, PictureSource, PixelBudget
from server.errors import UnsupportedParameter
from server.openai.media.defaults import EVERY_FRAME, budget_over, choice_over
from tests.unit.openai.asking import refused, sources

PICTURE: dict[str, Any] = {"type": "image", "image": "u"}
CLIP: dict[str, Any] = {"type": "video", "video": "u"}
FRAMES: dict[str, Any] = {"type": "video", "video": ["u", "v"]}
PAGES: dict[str, Any] = {"type": "file", "file": {"file_data": "data:u"}}


def budget_of(part: dict[str, Any], **mm: Any) -> PixelBudget:
    [source] = sources(part, mm_processor_kwargs=mm)
    return source.budget


def choice_of(part: dict[str, Any], **more: Any) -> FrameChoice:
    [source] = sources(part, **more)
    assert isinstance(source, ClipSource)
    return source.frames


# ---- Sizes


@pytest.mark.parametrize("part", [PICTURE, CLIP, FRAMES, PAGES], ids=["picture", "clip", "frames", "pages"])
@pytest.mark.parametrize(
    ("mm", "low", "high"),
    [
        ({}, None, None),
        ({"min_pixels": 5, "max_pixels": 7}, 5, 7),
        ({"size": {"shortest_edge": 5, "longest_edge": 7}}, 5, 7),
        ({"size": {"longest_edge": 7}}, None, 7),
        ({"size": {"shortest_edge": 5, "longest_edge": 7}, "max_pixels": 6}, 5, 6),
        ({"size": None, "min_pixels": None, "max_pixels": 6}, None, 6),
        ({"min_pixels": 6, "max_pixels": 6}, 6, 6),
    ],
    ids=str,
)
def test_sizes_hold_for_every_kind_of_media(part: dict[str, Any], mm: Any, low: int | None, high: int | None) -> None:
    assert budget_of(part, **mm) == PixelBudget(low, high)


@pytest.mark.parametrize(
    ("own", "mm", "meant"),
    [
        ({"max_pixels": 9}, {"max_pixels": 7}, PixelBudget(None, 9)),
        ({"max_pixels": 9}, {"min_pixels": 5}, PixelBudget(5, 9)),
        ({"max_pixels": 9}, {"min_pixels": 10}, PixelBudget(None, 9)),
        ({"min_pixels": 9}, {"min_pixels": 5, "max_pixels": 7}, PixelBudget(9, None)),
        ({"min_pixels": 9}, {"min_pixels": 10, "max_pixels": 11}, PixelBudget(9, 11)),
        ({"resized_height": 28, "resized_width": 56}, {"max_pixels": 7}, PixelBudget(None, 7, 28, 56)),
    ],
    ids=str,
)
def test_a_parts_own_sizes_win(own: dict[str, int], mm: dict[str, int], meant: PixelBudget) -> None:
    assert budget_of(PICTURE | own, **mm) == meant


pixels = st.none() | st.integers(1, 9)
budgets = st.builds(PixelBudget, pixels, pixels, pixels, pixels)


@given(budgets, budgets)
def test_nothing_that_was_asked_for_is_lost_or_contradicted(own: PixelBudget, under: PixelBudget) -> None:
    made = budget_over(own, under)
    for name in ("min_pixels", "max_pixels", "resized_height", "resized_width"):
        asked, got = getattr(own, name), getattr(made, name)
        assert got == asked if asked is not None else got in (None, getattr(under, name))
    if own.min_pixels is None or own.max_pixels is None:
        consistent = under.min_pixels is None or under.max_pixels is None or under.min_pixels <= under.max_pixels
        if consistent:
            assert made.min_pixels is None or made.max_pixels is None or made.min_pixels <= made.max_pixels


# ---- Frames


@pytest.mark.parametrize(
    ("mm", "io", "meant"),
    [
        ({}, {}, FrameChoice()),
        ({"fps": 2}, {}, FrameChoice(fps=2.0)),
        ({"fps": [3.0, 9.0]}, {}, FrameChoice(fps=3.0)),
        ({"num_frames": 8}, {}, FrameChoice(nframes=8)),
        ({"fps": 1, "min_frames": 6, "max_frames": 10}, {}, FrameChoice(fps=1.0, min_frames=6, max_frames=10)),
        ({"do_sample_frames": True, "fps": 1}, {}, FrameChoice(fps=1.0)),
        ({}, {"num_frames": -1}, FrameChoice()),
        ({}, {"num_frames": -1, "fps": -1}, FrameChoice()),
        ({}, {"num_frames": 0, "fps": 0}, FrameChoice()),
        ({}, {"fps": 0.5}, FrameChoice(fps=0.5)),
        ({}, {"num_frames": 32}, FrameChoice(fps=EVERY_FRAME, max_frames=32)),
        ({}, {"num_frames": 1}, FrameChoice(fps=EVERY_FRAME, max_frames=2)),
        ({}, {"num_frames": 32, "fps": 4}, FrameChoice(fps=4.0, max_frames=32)),
        ({"fps": 1}, {"num_frames": 32, "fps": 4}, FrameChoice(fps=1.0, max_frames=32)),
        ({"num_frames": 8}, {"num_frames": 32, "fps": 4}, FrameChoice(nframes=8)),
        ({"min_frames": 64}, {"num_frames": 32}, FrameChoice(fps=EVERY_FRAME, min_frames=64)),
    ],
    ids=str,
)
def test_frames_of_a_clip_file(mm: Any, io: Any, meant: FrameChoice) -> None:
    assert choice_of(CLIP, mm_processor_kwargs=mm, media_io_kwargs={"video": io}) == meant


@pytest.mark.parametrize(
    ("own", "mm", "meant"),
    [
        ({"fps": 5}, {"fps": 1}, FrameChoice(fps=5.0)),
        ({"fps": 5}, {"num_frames": 8}, FrameChoice(fps=5.0)),
        ({"fps": 5}, {"min_frames": 6, "max_frames": 8}, FrameChoice(fps=5.0, min_frames=6, max_frames=8)),
        ({"nframes": 4}, {"fps": 1, "min_frames": 6}, FrameChoice(nframes=4)),
        ({"max_frames": 4}, {"fps": 1, "min_frames": 6}, FrameChoice(fps=1.0, max_frames=4)),
        ({"min_frames": 9}, {"fps": 1, "max_frames": 8}, FrameChoice(fps=1.0, min_frames=9)),
        ({"total_pixels": 9, "video_start": 0}, {"fps": 1}, FrameChoice(fps=1.0, total_pixels=9, video_start=0.0)),
    ],
    ids=str,
)
def test_a_clips_own_choice_wins(own: dict[str, Any], mm: dict[str, Any], meant: FrameChoice) -> None:
    assert choice_of(CLIP | own, mm_processor_kwargs=mm) == meant


@pytest.mark.parametrize(
    ("own", "mm", "io", "fps"),
    [
        ({}, {}, {}, None),
        ({}, {"fps": 3}, {"fps": 5}, 3.0),
        ({}, {"fps": [3]}, {}, 3.0),
        ({}, {"fps": 3, "do_sample_frames": False}, {}, 3.0),
        ({}, {}, {"fps": 5, "num_frames": -1}, 5.0),
        ({}, {}, {"fps": -1}, None),
        ({}, {"num_frames": 8, "min_frames": 2}, {"num_frames": 32}, None),
        ({"sample_fps": 1}, {"fps": 3}, {}, 1.0),
        ({"fps": 1}, {"fps": 3}, {}, 1.0),
        ({"fps": 1, "sample_fps": 2}, {}, {}, 2.0),
    ],
    ids=str,
)
def test_a_list_of_frames_is_told_how_fast_it_runs_and_nothing_else(own: Any, mm: Any, io: Any, fps: Any) -> None:
    choice = choice_of(FRAMES | own, mm_processor_kwargs=mm, media_io_kwargs={"video": io})
    assert choice == FrameChoice(sample_fps=fps)


def test_a_list_of_speeds_has_one_for_each_clip_in_reading_order() -> None:
    made = sources(CLIP, PICTURE, FRAMES, CLIP | {"fps": 9}, CLIP, mm_processor_kwargs={"fps": [1, 2, 3, 4]})
    assert [one.frames.fps or one.frames.sample_fps for one in made if isinstance(one, ClipSource)] == [1, 2, 9, 4]
    error = refused(CLIP, CLIP, mm_processor_kwargs={"fps": [1]})
    assert error.param == "mm_processor_kwargs.fps"
    assert "1 numbers" in error.message


@pytest.mark.parametrize(("part", "asked"), [(CLIP, False), (FRAMES, True)], ids=["clip", "frames"])
def test_choosing_frames_or_not_cannot_be_asked_for(part: dict[str, Any], asked: bool) -> None:
    error = refused(part, mm_processor_kwargs={"do_sample_frames": asked})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == "mm_processor_kwargs.do_sample_frames"
    assert f"is {str(asked).lower()}" in error.message
    sources(part, mm_processor_kwargs={"do_sample_frames": not asked})
    sources(PICTURE, mm_processor_kwargs={"do_sample_frames": asked})


counts = st.none() | st.integers(1, 9)
choices = st.builds(FrameChoice, st.none() | st.just(2.0), counts, counts, counts).filter(
    lambda choice: choice.fps is None or choice.nframes is None
)


@given(choices, choices)
def test_a_choice_never_names_two_ways_that_exclude_each_other(own: FrameChoice, under: FrameChoice) -> None:
    made = choice_over(own, under)
    assert made.fps is None or made.nframes is None
    for name in ("fps", "nframes", "min_frames", "max_frames"):
        asked, got = getattr(own, name), getattr(made, name)
        assert got == asked if asked is not None else got in (None, getattr(under, name))


# ---- What is refused


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"mm_processor_kwargs": {"do_resize": False}}, "mm_processor_kwargs.do_resize"),
        ({"mm_processor_kwargs": {"size": {"height": 5}}}, "mm_processor_kwargs.size.height"),
        ({"mm_processor_kwargs": {"videos_kwargs": {"fps": 1}}}, "mm_processor_kwargs.videos_kwargs"),
        ({"mm_processor_kwargs": {"x" * 5000: 1}}, "mm_processor_kwargs." + "x" * 64),
        ({"media_io_kwargs": {"audio": {"a": 1}}}, "media_io_kwargs.audio"),
        ({"media_io_kwargs": {"video": {"backend": "x"}}}, "media_io_kwargs.video.backend"),
        ({"media_io_kwargs": {"image": {"a": 1}}}, "media_io_kwargs.image.a"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_an_unknown_wish_is_refused_with_those_that_are_known(body: dict[str, Any], param: str) -> None:
    error = refused(PICTURE, **body)
    assert isinstance(error, UnsupportedParameter)
    assert error.param == param
    assert "Known here: " in error.message
    assert len(error.message) < 500


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"mm_processor_kwargs": None, "media_io_kwargs": None},
        {"mm_processor_kwargs": {}, "media_io_kwargs": {}},
        {"mm_processor_kwargs": {"do_resize": None, "size": {}}},
        {"media_io_kwargs": {"audio": {}, "image": {"image_mode": "RGB"}, "video": None}},
    ],
    ids=str,
)
def test_wishes_that_ask_for_nothing_change_nothing(body: dict[str, Any]) -> None:
    [picture, pages] = sources(PICTURE, PAGES, **body)
    assert picture == PictureSource("u", "messages[0].content[0].image")
    assert pages == DocumentSource("data:u", "messages[0].content[1].file.file_data")


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"mm_processor_kwargs": 5}, "mm_processor_kwargs", "invalid_type"),
        ({"mm_processor_kwargs": []}, "mm_processor_kwargs", "invalid_type"),
        ({"mm_processor_kwargs": {"min_pixels": 9, "max_pixels": 8}}, "mm_processor_kwargs", "invalid_value"),
        ({"mm_processor_kwargs": {"max_pixels": "many"}}, "mm_processor_kwargs.max_pixels", "invalid_type"),
        ({"mm_processor_kwargs": {"max_pixels": 0}}, "mm_processor_kwargs.max_pixels", "invalid_value"),
        ({"mm_processor_kwargs": {"max_pixels": 8.5}}, "mm_processor_kwargs.max_pixels", "invalid_type"),
        ({"mm_processor_kwargs": {"size": 8}}, "mm_processor_kwargs.size", "invalid_type"),
        (
            {"mm_processor_kwargs": {"size": {"longest_edge": True}}},
            "mm_processor_kwargs.size.longest_edge",
            "invalid_type",
        ),
        ({"mm_processor_kwargs": {"fps": 0}}, "mm_processor_kwargs.fps", "invalid_value"),
        ({"mm_processor_kwargs": {"fps": [1, -1]}}, "mm_processor_kwargs.fps[1]", "invalid_value"),
        ({"mm_processor_kwargs": {"fps": {}}}, "mm_processor_kwargs.fps", "invalid_type"),
        ({"mm_processor_kwargs": {"fps": 1, "num_frames": 2}}, "mm_processor_kwargs.num_frames", "invalid_value"),
        ({"mm_processor_kwargs": {"do_sample_frames": 1}}, "mm_processor_kwargs.do_sample_frames", "invalid_type"),
        ({"media_io_kwargs": {"video": {"num_frames": -2}}}, "media_io_kwargs.video.num_frames", "invalid_value"),
        ({"media_io_kwargs": {"image": {"image_mode": "L"}}}, "media_io_kwargs.image.image_mode", "invalid_value"),
    ],
    ids=str,
)
def test_a_wrong_wish_is_refused_by_its_name(body: dict[str, Any], param: str, code: str) -> None:
    error = refused(PICTURE, **body)
    assert (error.param, error.code) == (param, code)
