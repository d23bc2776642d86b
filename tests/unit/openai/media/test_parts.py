"""Content parts that hold media: every spelling, every control, and errors that name the field as it was written."""

from __future__ import annotations

from typing import Any

import pytest

from server.core import ClipSource, DocumentSource, FrameChoice, PictureSource, PixelBudget
from server.errors import BadRequest, UnsupportedParameter
from server.openai.chat.body import ChatCompletionRequest
from server.openai.json_body import JsonBody
from server.openai.media.content import MAX_FRAMES, FilePart
from server.openai.media.parts import LOW_DETAIL_PIXELS, ORIGINAL_PIXELS, low_detail_pixels
from server.openai.parse import parse
from tests.unit.openai.asking import refused, sources

HERE = "messages[0].content[0]"


# ---- Pictures


@pytest.mark.parametrize(
    ("part", "url", "param"),
    [
        ({"type": "image_url", "image_url": {"url": "u"}}, "u", "image_url.url"),
        ({"type": "image_url", "image_url": "u"}, "u", "image_url"),
        ({"type": "image_url", "image_url": {"url": "u", "detail": ""}}, "u", "image_url.url"),
        ({"type": "image_url", "image_url": {"url": "u", "detail": None, "format": "image/png"}}, "u", "image_url.url"),
        ({"type": "image", "image": "u"}, "u", "image"),
        ({"type": "image", "image": {"url": "u"}}, "u", "image.url"),
        ({"type": "image", "image_url": "u"}, "u", "image_url"),
        ({"type": "image", "image_url": {"url": "u"}}, "u", "image_url.url"),
        ({"type": "image", "image": None, "image_url": "v"}, "v", "image_url"),
        ({"type": "image", "image": ""}, "", "image"),
    ],
    ids=str,
)
def test_pictures_in_every_spelling(part: dict[str, Any], url: str, param: str) -> None:
    assert sources(part) == (PictureSource(url, f"{HERE}.{param}"),)


@pytest.mark.parametrize("place", [{"image": {"url": "u"}}, {"image_url": {"url": "u"}}], ids=["image", "image_url"])
@pytest.mark.parametrize(
    ("detail", "own", "mm", "meant"),
    [
        ("low", {}, {}, PixelBudget(None, LOW_DETAIL_PIXELS)),
        ("original", {}, {}, PixelBudget(None, ORIGINAL_PIXELS)),
        ("auto", {}, {}, PixelBudget()),
        ("high", {}, {}, PixelBudget()),
        (None, {}, {}, PixelBudget()),
        ("low", {"max_pixels": 9_999_999}, {}, PixelBudget(None, 9_999_999)),
        ("original", {"max_pixels": 9}, {}, PixelBudget(None, 9)),
        ("low", {"min_pixels": 9}, {}, PixelBudget(9, LOW_DETAIL_PIXELS)),
        ("low", {"min_pixels": 9_999_999}, {}, PixelBudget(9_999_999, None)),
        ("low", {}, {"max_pixels": 9}, PixelBudget(None, LOW_DETAIL_PIXELS)),
        ("low", {}, {"min_pixels": 9_999_999}, PixelBudget(None, LOW_DETAIL_PIXELS)),
        ("original", {}, {"min_pixels": 9, "max_pixels": 9}, PixelBudget(9, ORIGINAL_PIXELS)),
        ("auto", {}, {"max_pixels": 9}, PixelBudget(None, 9)),
        ("high", {}, {"max_pixels": 9}, PixelBudget(None, 9)),
    ],
)
def test_detail_is_a_budget_between_the_parts_own_and_the_requests(
    place: dict[str, Any], detail: str | None, own: dict[str, int], mm: dict[str, int], meant: PixelBudget
) -> None:
    [(name, url)] = place.items()
    part = {"type": name, name: {**url, "detail": detail}, **own}
    [source] = sources(part, mm_processor_kwargs=mm)
    assert source.budget == meant


@pytest.mark.parametrize(
    ("least", "most", "low"),
    [
        (None, None, LOW_DETAIL_PIXELS),
        (None, 100_000, 100_000),
        (None, 9_999_999, LOW_DETAIL_PIXELS),
        (3136, 9_999_999, LOW_DETAIL_PIXELS),
        (500_000, 9_999_999, 500_000),
        (50_000, 100_000, 100_000),
    ],
)
def test_low_detail_is_never_more_than_the_servers_default_and_never_less_than_its_least(
    least: int | None, most: int | None, low: int
) -> None:
    assert low_detail_pixels(least, most) == low
    [source] = sources({"type": "image_url", "image_url": {"url": "u", "detail": "low"}}, low_pixels=low)
    assert source.budget.max_pixels == low


# ---- Clips


@pytest.mark.parametrize(
    ("part", "meant"),
    [
        ({"type": "video_url", "video_url": {"url": "u"}}, (("u",), "video_url.url", True)),
        ({"type": "video_url", "video_url": "u"}, (("u",), "video_url", True)),
        ({"type": "video", "video": "u"}, (("u",), "video", True)),
        ({"type": "video", "video": {"url": "u"}}, (("u",), "video.url", True)),
        ({"type": "video", "video": ["u", "v", "u"]}, (("u", "v", "u"), "video", False)),
        ({"type": "video", "video": ["u"]}, (("u",), "video", False)),
        (
            {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64,aa,bb=="}},
            (("data:image/jpeg;base64,aa", "data:image/jpeg;base64,bb=="), "video_url.url", False),
        ),
        ({"type": "video", "video": "DATA:video/JPEG;base64,aa"}, (("data:image/jpeg;base64,aa",), "video", False)),
        (
            {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,aa"}},
            (("data:video/mp4;base64,aa",), "video_url.url", True),
        ),
    ],
    ids=str,
)
def test_clips_in_every_spelling(part: dict[str, Any], meant: tuple[tuple[str, ...], str, bool]) -> None:
    urls, param, is_file = meant
    assert sources(part) == (ClipSource(urls, f"{HERE}.{param}", is_file),)


@pytest.mark.parametrize("place", [{"type": "video", "video": "u"}, {"type": "video_url", "video_url": {"url": "u"}}])
def test_a_clip_file_takes_every_control_of_qwen_vl_utils(place: dict[str, Any]) -> None:
    sizes = {"min_pixels": 1, "max_pixels": 2, "resized_height": 3, "resized_width": 4}
    times = {"fps": 0.5, "min_frames": 5, "max_frames": 6, "video_start": 0, "video_end": 7.5, "total_pixels": 8}
    [source] = sources(place | sizes | times | {"raw_fps": 30})
    assert isinstance(source, ClipSource)
    assert source.budget == PixelBudget(**sizes)
    assert source.frames == FrameChoice(0.5, None, 5, 6, 0.0, 7.5, 8)
    [source] = sources(place | {"nframes": 9})
    assert isinstance(source, ClipSource)
    assert source.frames == FrameChoice(nframes=9)


def test_a_list_of_frames_takes_sizes_and_how_fast_it_runs() -> None:
    sizes = {"min_pixels": 1, "max_pixels": 2, "resized_height": 3, "resized_width": 4}
    more = {"sample_fps": 1.5, "raw_fps": 30.0, "total_pixels": 8}
    [source] = sources({"type": "video", "video": ["u"], **sizes, **more})
    assert isinstance(source, ClipSource)
    assert (source.budget, source.frames) == (PixelBudget(**sizes), FrameChoice(sample_fps=1.5, total_pixels=8))


@pytest.mark.parametrize("name", ["nframes", "min_frames", "max_frames", "video_start", "video_end"])
@pytest.mark.parametrize(
    "place",
    [{"type": "video", "video": ["u"]}, {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64,aa"}}],
    ids=["list", "frames in a data URL"],
)
def test_a_list_of_frames_refuses_what_would_choose_among_them(place: dict[str, Any], name: str) -> None:
    error = refused(place | {name: 2})
    assert error.param == f"{HERE}.{name}"
    assert "list of frames" in error.message
    assert sources(place | {name: None}) == sources(place)


def test_frames_in_a_data_url_are_counted_before_they_are_kept() -> None:
    def clip(frames: int) -> dict[str, Any]:
        return {"type": "video_url", "video_url": {"url": "data:video/jpeg;base64," + "," * (frames - 1)}}

    [source] = sources(clip(MAX_FRAMES))
    assert isinstance(source, ClipSource)
    assert len(source.urls) == MAX_FRAMES
    assert refused(clip(MAX_FRAMES + 1)).param == f"{HERE}.video_url.url"


# ---- Documents


@pytest.mark.parametrize(
    ("data", "url"),
    [
        ("data:application/pdf;base64,JVBERi0=", "data:application/pdf;base64,JVBERi0="),
        ("JVBERi0=", "data:application/pdf;base64,JVBERi0="),
        ("https://example.org/a.pdf", "https://example.org/a.pdf"),
        ("file:///media/a.pdf", "file:///media/a.pdf"),
        ("", "data:application/pdf;base64,"),
    ],
)
def test_a_document_is_a_data_url_plain_base64_or_an_address(data: str, url: str) -> None:
    part = {"type": "file", "file": {"file_data": data, "filename": "a.pdf", "file_id": None}}
    assert sources(part) == (DocumentSource(url, f"{HERE}.file.file_data"),)


@pytest.mark.parametrize(
    ("pages", "meant"),
    [(None, ()), ("2-,1", ((2, None), (1, 1))), (3, ((3, 3),)), ([3, 1], ((3, 3), (1, 1)))],
    ids=str,
)
def test_a_document_takes_pages_a_resolution_and_sizes(pages: Any, meant: tuple[tuple[int, int | None], ...]) -> None:
    part = {"type": "file", "file": {"file_data": "data:u"}, "pages": pages, "dpi": 150, "max_pixels": 9}
    [source] = sources(part)
    assert source == DocumentSource("data:u", f"{HERE}.file.file_data", meant, 150.0, PixelBudget(None, 9))


def test_a_documents_password_is_kept_and_never_shown() -> None:
    part = {"type": "file", "file": {"file_data": "data:u", "password": "geheim"}}
    [source] = sources(part)
    assert isinstance(source, DocumentSource)
    assert source.password == "geheim"
    assert "geheim" not in repr(source)
    assert "geheim" not in repr(FilePart.model_validate(part))
    assert refused({**part, "file": {"file_data": "data:u", "password": 5}}).param == f"{HERE}.file.password"


def test_a_kept_file_is_refused_by_its_field() -> None:
    error = refused({"type": "file", "file": {"file_id": "file-1"}})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == f"{HERE}.file.file_id"
    assert "file_data" in error.message


# ---- Controls inside of the URL's object, where LMDeploy's clients write them

PLACES: dict[str, tuple[dict[str, Any], str]] = {
    "image_url": ({"url": "u"}, "max_pixels min_pixels resized_height detail"),
    "image": ({"url": "u"}, "max_pixels min_pixels resized_width detail"),
    "video_url": ({"url": "u"}, "max_pixels fps min_frames max_frames video_start video_end total_pixels"),
    "video": ({"url": "u"}, "nframes max_pixels"),
    "file": ({"file_data": "u"}, "pages dpi max_pixels"),
}
INSIDE = [(kind, name) for kind, (_, names) in PLACES.items() for name in names.split()]
VALUES: dict[str, tuple[Any, Any]] = {"detail": ("low", "original"), "pages": ("1-2", "3")}


@pytest.mark.parametrize(("kind", "name"), INSIDE)
def test_a_control_means_the_same_inside_of_the_urls_object_as_beside_it(kind: str, name: str) -> None:
    place, (value, other) = PLACES[kind][0], VALUES.get(name, (50, 60))
    beside = sources({"type": kind, kind: place, name: value})
    assert beside != sources({"type": kind, kind: place})
    assert sources({"type": kind, kind: {**place, name: value}}) == beside
    assert sources({"type": kind, kind: {**place, name: value}, name: value}) == beside
    assert sources({"type": kind, kind: {**place, name: None}, name: value}) == beside
    error = refused({"type": kind, kind: {**place, name: value}, name: other})
    assert error.param == f"{HERE}.{kind}.{name}"
    assert f"'{HERE}.{name}'" in error.message


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "video_url", "video_url": {"url": "u", "fps": 1, "nframes": 2}}, "video_url.nframes"),
        ({"type": "video_url", "video_url": {"url": "u", "nframes": 2}, "fps": 1}, "video_url.nframes"),
        ({"type": "video_url", "video_url": {"url": "u", "fps": 1}, "nframes": 2}, "nframes"),
        ({"type": "video", "video": {"url": "u", "sample_fps": 2}}, "video.sample_fps"),
        ({"type": "video", "video": {"url": "data:video/jpeg;base64,aa", "nframes": 2}}, "video.nframes"),
        ({"type": "file", "file": {"file_data": "u", "pages": "x"}}, "file.pages"),
        ({"type": "image_url", "image_url": {"url": "u", "max_pixels": 0}}, "image_url.max_pixels"),
    ],
    ids=str,
)
def test_a_wrong_control_is_named_where_it_was_written(part: dict[str, Any], param: str) -> None:
    assert refused(part).param == f"{HERE}.{param}"


@pytest.mark.parametrize(
    ("part", "written", "meant"),
    [
        ({"type": "image", "image": "u"}, {"max_pixels": "9"}, {"max_pixels": 9}),
        ({"type": "image", "image": "u"}, {"max_pixels": 9.0}, {"max_pixels": 9}),
        ({"type": "image", "image": "u"}, {"detail": ""}, {}),
        ({"type": "video", "video": "u"}, {"fps": "0.5", "video_end": "5"}, {"fps": 0.5, "video_end": 5}),
        ({"type": "video", "video": "u"}, {"nframes": 2.0}, {"nframes": 2}),
        (
            {"type": "file", "file": {"file_data": "u"}},
            {"pages": [1, "2"], "dpi": "150"},
            {"pages": [1, 2], "dpi": 150},
        ),
        ({"type": "file", "file": {"file_data": "u"}}, {"pages": 3.0}, {"pages": 3}),
    ],
    ids=str,
)
def test_numbers_in_strings_and_whole_numbers_with_a_point_are_numbers(
    part: dict[str, Any], written: dict[str, Any], meant: dict[str, Any]
) -> None:
    assert sources({**part, **written}) == sources({**part, **meant})


# ---- What is refused, by the name of the field as it was written

IMAGE = {"type": "image", "image": "u"}
VIDEO = {"type": "video", "video": "u"}
FILE: dict[str, Any] = {"type": "file", "file": {"file_data": "u"}}


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        ({"type": "image_url", "image_url": ["u"]}, "image_url", "invalid_type"),
        ({"type": "image_url", "image_url": {}}, "image_url.url", "missing_required_parameter"),
        ({"type": "image_url"}, "image_url", "missing_required_parameter"),
        ({"type": "image_url", "image_url": {"url": "u", "detail": "max"}}, "image_url.detail", "invalid_value"),
        ({"type": "image", "image": "u", "image_url": "v"}, "image_url", "invalid_value"),
        ({"type": "image"}, "image", "missing_required_parameter"),
        ({"type": "image", "image": None}, "image", "missing_required_parameter"),
        ({"type": "image", "image": 5}, "image", "invalid_type"),
        ({"type": "image", "image": ["u"]}, "image", "invalid_type"),
        ({"type": "image", "image": {"url": 5}}, "image.url", "invalid_type"),
        ({"type": "image", "image_url": {}}, "image_url.url", "missing_required_parameter"),
        ({"type": "video_url", "video_url": ["u"]}, "video_url", "invalid_type"),
        ({"type": "video_url", "video_url": {"url": ["u"]}}, "video_url.url", "invalid_type"),
        ({"type": "video"}, "video", "missing_required_parameter"),
        ({"type": "video", "video": None}, "video", "invalid_type"),
        ({"type": "video", "video": []}, "video", "invalid_value"),
        ({"type": "video", "video": ["u", 5]}, "video[1]", "invalid_type"),
        ({"type": "video", "video": ["u", {"url": "u"}]}, "video[1]", "invalid_type"),
        ({"type": "video", "video": ["u"] * (MAX_FRAMES + 1)}, "video", "invalid_value"),
        ({"type": "file"}, "file", "missing_required_parameter"),
        ({"type": "file", "file": "u"}, "file", "invalid_type"),
        ({"type": "file", "file": {}}, "file.file_data", "missing_required_parameter"),
        ({"type": "file", "file": {"file_data": 5}}, "file.file_data", "invalid_type"),
        (FILE | {"pages": "x"}, "pages", "invalid_value"),
        (FILE | {"pages": 0}, "pages", "invalid_value"),
        (FILE | {"pages": True}, "pages", "invalid_type"),
        (FILE | {"pages": 1.5}, "pages", "invalid_type"),
        (FILE | {"pages": []}, "pages", "invalid_value"),
        (FILE | {"pages": [1, "x"]}, "pages[1]", "invalid_type"),
        (FILE | {"pages": "1," * 600}, "pages", "invalid_value"),
        (FILE | {"dpi": 0}, "dpi", "invalid_value"),
        (FILE | {"dpi": "fine"}, "dpi", "invalid_type"),
        (IMAGE | {"max_pixels": "9e9"}, "max_pixels", "invalid_type"),
        (IMAGE | {"max_pixels": True}, "max_pixels", "invalid_type"),
        (IMAGE | {"min_pixels": 0}, "min_pixels", "invalid_value"),
        (IMAGE | {"resized_height": 1 << 60}, "resized_height", "invalid_value"),
        (VIDEO | {"fps": "two"}, "fps", "invalid_type"),
        (VIDEO | {"fps": 0}, "fps", "invalid_value"),
        (VIDEO | {"fps": -1.0}, "fps", "invalid_value"),
        (VIDEO | {"fps": 1001}, "fps", "invalid_value"),
        (VIDEO | {"nframes": 2.5}, "nframes", "invalid_type"),
        (VIDEO | {"nframes": 0}, "nframes", "invalid_value"),
        (VIDEO | {"fps": 1, "nframes": 2}, "nframes", "invalid_value"),
        (VIDEO | {"video_start": -1}, "video_start", "invalid_value"),
        (VIDEO | {"video_end": "5 s"}, "video_end", "invalid_type"),
        (VIDEO | {"total_pixels": 0.5}, "total_pixels", "invalid_type"),
        (VIDEO | {"sample_fps": 2}, "sample_fps", "invalid_value"),
        (VIDEO | {"raw_fps": "x"}, "raw_fps", "invalid_type"),
    ],
    ids=lambda value: str(value)[:80],
)
def test_a_wrong_part_is_refused_by_the_name_of_the_field(part: dict[str, Any], param: str, code: str) -> None:
    error = refused(part)
    assert (error.param, error.code) == (f"{HERE}.{param}", code)
    assert f"{HERE}.{param}" in error.message


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
@pytest.mark.parametrize("name", ["fps", "video_start", "video_end", "sample_fps"])
def test_no_number_is_without_end(name: str, number: str) -> None:
    body = '{"model": "m", "messages": [{"role": "user", "content": [{"type": "video", "video": "u", "%s": %s}]}]}'
    with pytest.raises(BadRequest) as caught:
        parse(ChatCompletionRequest, JsonBody.whole((body % (name, number)).encode()))
    assert caught.value.param == f"{HERE}.{name}"


# ---- Two names for the number of frames

BESIDE_AND_INSIDE = [
    ({"nframes": 4, "num_frames": 6}, {}, f"{HERE}.num_frames"),
    ({"nframes": 4}, {"num_frames": 6}, f"{HERE}.video_url.num_frames"),
    ({"num_frames": 4}, {"fps": 1}, f"{HERE}.num_frames"),
    ({"fps": 1}, {"nframes": 4}, f"{HERE}.video_url.nframes"),
]


def clip_part(beside: dict[str, Any], inside: dict[str, Any]) -> dict[str, Any]:
    return {"type": "video_url", "video_url": {"url": "u", **inside}, **beside}


def test_vllms_name_for_the_number_of_frames_means_the_same() -> None:
    [named] = sources(clip_part({"nframes": 4}, {}))
    assert isinstance(named, ClipSource)
    assert named.frames.nframes == 4
    for beside, inside in (({"num_frames": 4}, {}), ({}, {"num_frames": 4}), ({"num_frames": 4}, {"nframes": 4})):
        assert sources(clip_part(beside, inside)) == (named,)


@pytest.mark.parametrize(("beside", "inside", "param"), BESIDE_AND_INSIDE, ids=str)
def test_wishes_for_frames_that_exclude_each_other_are_refused_where_they_stand(
    beside: dict[str, Any], inside: dict[str, Any], param: str
) -> None:
    assert refused(clip_part(beside, inside)).param == param
