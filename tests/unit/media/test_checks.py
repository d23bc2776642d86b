"""What is refused before anything is fetched or decoded, and what one request may use up."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.core import ClipSource, DocumentSource, FrameChoice, PictureSource, PixelBudget, Source
from server.errors import BadRequest, ContextLengthExceeded, InvalidFile, InvalidImage, InvalidVideo, MediaKind
from server.media.checks import Checked, Spent, check
from server.media.limits import RequestLimits, WorkLimits
from server.media.pixels import FACTOR, target_size
from server.media.sources import EXAMPLES, Inline, Local, Remote
from server.media.workers.jobs import ClipJob, PagesJob, PictureJob

LIMITS = RequestLimits()
WORK = WorkLimits()
URLS: dict[MediaKind, str] = {
    "image": "data:image/png;base64,AAAA",
    "video": "data:video/mp4;base64,AAAA",
    "file": "data:application/pdf;base64,AAAA",
}
WEB = "https://example.com/x"


def picture(url: str = URLS["image"], param: str = "p", **budget: int) -> PictureSource:
    return PictureSource(url, param, PixelBudget(**budget))


def clip(url: str = URLS["video"], param: str = "c", budget: PixelBudget | None = None, **frames: float) -> ClipSource:
    return ClipSource((url,), param, is_file=True, budget=budget or PixelBudget(), frames=FrameChoice(**frames))


def listed(*urls: str, param: str = "l") -> ClipSource:
    return ClipSource(urls, param, is_file=False)


def document(url: str = URLS["file"], param: str = "d", **options: object) -> DocumentSource:
    return DocumentSource(url, param, **options)  # type: ignore[arg-type]


def check_one(source: Source, limits: RequestLimits = LIMITS, work: WorkLimits = WORK) -> Checked:
    (checked,) = check([source], limits, work)
    assert checked.source is source
    return checked


def refusal(sources: Sequence[Source], limits: RequestLimits = LIMITS, work: WorkLimits = WORK) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        check(sources, limits, work)
    return caught.value


# ---- What passes ------------------------------------------------------------------------------------


def test_nothing_is_nothing_to_check() -> None:
    assert check([], LIMITS, WORK) == []


def test_sources_are_checked_in_their_order() -> None:
    sources = [picture(), clip(), document(), picture(param="q"), listed(URLS["image"])]
    assert [one.source for one in check(sources, LIMITS, WORK)] == sources


def test_a_picture_becomes_a_job_with_its_budget() -> None:
    checked = check_one(picture(max_pixels=50 * 784))
    assert checked.job == PictureJob("p", LIMITS.max_tokens, PixelBudget(max_pixels=50 * 784))
    assert checked.contents == (Inline(URLS["image"], len("data:image/png;base64,"), 3, "image", "p"),)


def test_a_clip_file_becomes_a_job_with_its_choice_of_frames() -> None:
    checked = check_one(clip(WEB, budget=PixelBudget(max_pixels=200 * 784), fps=1.0))
    budget, choice = PixelBudget(max_pixels=200 * 784), FrameChoice(fps=1.0)
    assert checked.job == ClipJob("c", LIMITS.max_tokens, budget, is_file=True, choice=choice)
    assert checked.contents == (Remote(WEB, "video", "c"),)


def test_the_frames_of_a_clip_are_pictures_each_with_its_own_place() -> None:
    checked = check_one(listed(WEB, URLS["image"], "file:///media/x.png"))
    assert checked.job == ClipJob("l", LIMITS.max_tokens, is_file=False)
    assert checked.contents == (
        Remote(WEB, "image", "l[0]"),
        Inline(URLS["image"], len("data:image/png;base64,"), 3, "image", "l[1]"),
        Local("/media/x.png", "image", "l[2]"),
    )


def test_a_document_becomes_a_job_with_its_pages() -> None:
    checked = check_one(document(pages=((1, 3), (7, None)), dpi=200.0))
    assert checked.job == PagesJob("d", LIMITS.max_tokens, pages=((1, 3), (7, None)), dpi=200.0)
    assert [type(content) for content in checked.contents] == [Inline]


# ---- The most it can take ---------------------------------------------------------------------------


PIXELS = st.none() | st.integers(784, 16384 * 784)


@settings(max_examples=500, deadline=None)
@given(st.integers(1, 8000), st.integers(1, 8000), PIXELS, PIXELS)
def test_a_picture_takes_no_more_than_was_said_but_for_rounding(
    height: int, width: int, max_pixels: int | None, min_pixels: int | None
) -> None:
    """Each side may be rounded up by less than a block."""
    assume(max(height, width) <= 200 * min(height, width))
    budget = PixelBudget(min_pixels=min_pixels, max_pixels=max_pixels)
    try:
        checked = check_one(replace(picture(), budget=budget))
    except BadRequest:  # such as a max_pixels below the model's min_pixels
        assume(False)
    high, wide = target_size(height, width, budget, WORK.pixels)
    assert WORK.tokens((high - FACTOR) * (wide - FACTOR)) <= checked.most_tokens


@pytest.mark.parametrize(
    ("source", "most"),
    [
        (picture(), 16384),
        (picture(max_pixels=100 * 784), 100),
        (picture(max_pixels=100 * 784 + 783), 100),
        (picture(max_pixels=10**9), 16384),
        (picture(resized_height=280, resized_width=560), 200),
        (picture(min_pixels=200 * 784, max_pixels=200 * 784), 200),
        # known only once it is open
        (clip(), LIMITS.max_tokens),
        (clip(nframes=2), LIMITS.max_tokens),
        (listed(URLS["image"]), LIMITS.max_tokens),
        # as many pages as a request may have
        (document(budget=PixelBudget(max_pixels=100 * 784)), 1600),
        (document(), LIMITS.max_tokens),
    ],
)
def test_the_most_tokens_are_known_beforehand(source: Source, most: int) -> None:
    assert check_one(source).most_tokens == most


def test_nothing_takes_more_than_a_request_may() -> None:
    limits = replace(LIMITS, max_tokens=10)
    for source in (picture(), clip(), listed(URLS["image"]), document()):
        checked = check_one(source, limits)
        assert (checked.most_tokens, checked.job.max_tokens) == (10, 10)


# ---- What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "limits", "noun"),
    [
        (picture(), replace(LIMITS, max_pictures=3), "4 pictures, more than the 3"),
        (clip(), replace(LIMITS, max_clips=3), "4 clips, more than the 3"),
        (listed(URLS["image"], URLS["image"]), replace(LIMITS, max_clips=3), "4 clips, more than the 3"),
        (document(), replace(LIMITS, max_pages=3), "4 documents, more than the 3"),
    ],
)
def test_there_may_be_only_so_many_of_a_kind(source: Source, limits: RequestLimits, noun: str) -> None:
    sources = [replace(source, param=f"{number}") for number in range(4)]
    assert len(check(sources[:3], limits, WORK)) == 3
    error = refusal(sources, limits)
    assert noun in error.message
    assert error.param == "3"


@pytest.mark.parametrize(
    ("source", "limits"),
    [
        (picture(), replace(LIMITS, max_pictures=0)),
        (clip(), replace(LIMITS, max_clips=0)),
        (document(), replace(LIMITS, max_pages=0)),
    ],
)
def test_an_operator_can_let_in_none_of_a_kind(source: Source, limits: RequestLimits) -> None:
    assert refusal([source], limits).param == source.param


def test_a_clip_may_have_only_so_many_frames() -> None:
    work = replace(WORK, clips=replace(WORK.clips, max_frames=4, hard_max_frames=4))
    assert len(check_one(listed(*[URLS["image"]] * 4), work=work).contents) == 4
    error = refusal([listed(*[URLS["image"]] * 5)], work=work)
    assert "5 frames, more than the 4" in error.message
    assert error.param == "l"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (picture(max_pixels=1), "max_pixels"),
        (picture(min_pixels=0), "min_pixels"),
        (picture(resized_height=28), "resized_height"),
        (picture(min_pixels=10**12), "min_pixels"),
        (document(budget=PixelBudget(max_pixels=1)), "max_pixels"),
        (document(dpi=0.0), "dpi"),
        (document(dpi=10_000.0), "dpi"),
        (document(dpi=float("nan")), "dpi"),
        (clip(budget=PixelBudget(max_pixels=1)), "max_pixels"),
        (clip(fps=1.0, nframes=4), "fps"),
        (clip(fps=0.0), "fps"),
        (clip(video_start=5.0, video_end=5.0), "video_start"),
        (clip(nframes=100_000), "nframes"),
        (replace(listed(URLS["image"]), frames=FrameChoice(sample_fps=-1.0)), "sample_fps"),
        (replace(listed(URLS["image"]), budget=PixelBudget(resized_width=28)), "resized_width"),
    ],
)
def test_controls_that_nothing_can_satisfy_are_refused_by_name(source: Source, name: str) -> None:
    """Whether or not its file could be had: it is not looked at."""
    error = refusal([source])
    assert (type(error), error.param) == (BadRequest, source.param)
    assert error.message.startswith(name)


@pytest.mark.parametrize(
    ("source", "error", "code", "param"),
    [
        (picture("/etc/passwd"), InvalidImage, "invalid_image_url", "p"),
        (clip("data:video/mp4,AAAA"), InvalidVideo, "invalid_base64_video", "c"),
        (document("data:application/pdf;base64,"), InvalidFile, "empty_file", "d"),
        (listed(URLS["image"], "ftp://host/x"), InvalidImage, "invalid_image_url", "l[1]"),
    ],
)
def test_what_no_source_can_be_is_refused_where_it_stands(
    source: Source, error: type[BadRequest], code: str, param: str
) -> None:
    refused = refusal([picture(), source])
    assert (type(refused), refused.code, refused.param) == (error, code, param)


@pytest.mark.parametrize(
    ("kind", "source", "code"),
    [
        ("image", picture, "image_file_too_large"),
        ("video", clip, "video_too_large"),
        ("file", document, "file_too_large"),
    ],
)
def test_each_kind_has_its_own_limit_of_bytes(kind: MediaKind, source: type[Source], code: str) -> None:
    head = URLS[kind].removesuffix("AAAA")
    limits = replace(LIMITS, max_bytes={**LIMITS.max_bytes, kind: 100})
    check_one(source(head + base64.b64encode(bytes(100)).decode()), limits)  # type: ignore[call-arg, arg-type]
    error = refusal([source(head + base64.b64encode(bytes(101)).decode())], limits)  # type: ignore[call-arg, arg-type]
    assert error.code == code


@pytest.mark.parametrize(
    ("source", "kind", "error", "code"),
    [
        (picture(WEB), "image", InvalidImage, "invalid_image_url"),
        (clip(WEB), "video", InvalidVideo, "invalid_video_url"),
        (document(WEB), "file", InvalidFile, "invalid_file_url"),
        (listed(WEB), "image", InvalidImage, "invalid_image_url"),
    ],
)
def test_a_server_that_fetches_nothing_says_what_to_send(
    source: Source, kind: MediaKind, error: type[BadRequest], code: str
) -> None:
    refused = refusal([source], replace(LIMITS, remote=False))
    assert (type(refused), refused.code) == (error, code)
    assert EXAMPLES[kind] in refused.message
    for other in (picture(), picture("file:///media/x.png"), clip(), document()):
        check_one(other, replace(LIMITS, remote=False))


# ---- What a request uses up -------------------------------------------------------------------------


def test_what_came_along_counts_before_anything_is_fetched() -> None:
    limits = replace(LIMITS, max_request_bytes=12)
    sources = [picture(), clip(), document(), listed(URLS["image"], WEB, "file:///media/x.png")]
    checked = check(sources, limits, WORK)
    spent = Spent(limits)
    spent.add_inline(checked)  # four of 3 bytes
    with pytest.raises(InvalidVideo) as caught:
        spent.add_bytes(1, "video", "c")
    assert (caught.value.code, caught.value.param) == ("video_too_large", "c")
    with pytest.raises(InvalidImage) as refused:
        Spent(replace(limits, max_request_bytes=11)).add_inline(checked)
    assert (refused.value.code, refused.value.param) == ("image_file_too_large", "l[0]")


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), max_size=10))
def test_bytes_of_all_files_count_together(sizes: list[int]) -> None:
    spent = Spent(replace(LIMITS, max_request_bytes=100))
    total = 0
    for size in sizes:
        total += size
        if total <= 100:
            spent.add_bytes(size, "file", "d")
        else:
            with pytest.raises(InvalidFile, match="100 bytes together"):
                spent.add_bytes(size, "file", "d")
            break


def test_tokens_of_all_pictures_count_together() -> None:
    spent = Spent(replace(LIMITS, max_tokens=100))
    spent.add_tokens(60)
    spent.add_tokens(40)
    assert spent.tokens == 100
    with pytest.raises(ContextLengthExceeded) as caught:
        spent.add_tokens(1)
    assert caught.value.param == "messages"
    assert "100 tokens" in caught.value.message


def test_pages_of_all_documents_count_together() -> None:
    spent = Spent(replace(LIMITS, max_pages=5))
    spent.add_pages(0, "c")
    spent.add_pages(3, "d")
    spent.add_pages(2, "e")
    with pytest.raises(InvalidFile) as caught:
        spent.add_pages(1, "f")
    assert (caught.value.code, caught.value.param) == ("file_too_large", "f")
    assert "5 pages" in caught.value.message
    assert "'pages'" in caught.value.message
