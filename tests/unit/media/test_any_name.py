"""Whatever a file is called and wherever it stands, it is read as what its bytes are, in a worker in its box."""

from __future__ import annotations

import base64

import pytest

from server.core import Clip, ClipSource, DocumentSource, FrameChoice, Picture, PictureSource, PixelBudget, Source
from server.errors import ApiError, InvalidFile, InvalidVideo, MediaKind
from server.media.checks import check, settle
from server.media.formats import FORMATS
from server.media.heads import first_bytes
from server.media.limits import RequestLimits, WorkLimits
from server.media.workers.jobs import ClipJob, Job, PagesJob, PictureJob
from tests.media_files import CLIPS, DOCUMENTS, FILES, PICTURES, SIZE
from tests.unit.media.preparing import Room, room

SMALL = PixelBudget(min_pixels=56 * 56, max_pixels=112 * 112)
LABELS = (
    "",
    "*/*",
    "application/octet-stream",
    "image/*",
    "text/plain",
    *(label for one in FORMATS for label in one.media_types),
)
LIMITS, WORK = RequestLimits(), WorkLimits()


def source(kind: MediaKind, data: bytes, label: str = "", pages: tuple[tuple[int, int | None], ...] = ()) -> Source:
    url = f"data:{label};base64,{base64.b64encode(data).decode()}"
    match kind:
        case "image":
            return PictureSource(url, "here", SMALL)
        case "video":
            return ClipSource((url,), "here", is_file=True, budget=SMALL)
        case "file":
            return DocumentSource(url, "here", pages, budget=SMALL)


async def shown(there: Room, kind: MediaKind, data: bytes, label: str = "") -> list[Picture] | str:
    try:
        return await there.pictures(source(kind, data, label))
    except ApiError as error:
        return f"{error.code} at {error.param}"


async def test_every_file_is_what_it_is_in_every_part() -> None:
    wrong: list[object] = []
    async with room() as there:
        for name, make in FILES.items():
            data = make()
            for kind in ("image", "video", "file"):
                found = await shown(there, kind, data, "application/octet-stream")
                if not _is_right(name, kind, found):
                    wrong.append((name, kind, found))
    assert wrong == []


NO_CLIPS = {
    ("PDF", "video", "unsupported_video_media_type at here"),
    ("TIFF, three pages", "video", "invalid_video at here"),
}
"""What is no frame of a clip."""


def _is_right(name: str, kind: MediaKind, found: list[Picture] | str) -> bool:
    if isinstance(found, str):
        return (name, kind, found) in NO_CLIPS
    is_clip = kind == "video" or (name in CLIPS and name not in PICTURES and " animated and" not in name)
    if name.startswith(("WebP", "PNG", "GIF", "animated AVIF")) and kind != "video":
        is_clip = False
    pages = [picture.page for picture in found]
    if is_clip:
        return len(found) == 1 and isinstance(found[0], Clip)
    if name in DOCUMENTS or (name.startswith("TIFF") and kind == "file"):
        count = {"TIFF, three pages": 3, "PDF": 2}.get(name, 1)
        alone = kind == "image" and name == "TIFF, one page"
        return pages == ([None] if alone else [*range(1, count + 1)])
    return pages == [None] and not isinstance(found[0], Clip)


@pytest.mark.parametrize("kind", ["image", "video", "file"])
@pytest.mark.parametrize("label", LABELS)
def test_no_label_changes_what_is_done(kind: MediaKind, label: str) -> None:
    for name in ("PNG", "GIF, animated", "PDF", "TIFF", "MP4, H.264"):
        data = MADE[name]
        if name == "PDF" and kind == "video":
            continue
        assert settled(source(kind, data, label)) == settled(source(kind, data))


MADE = {
    name: FILES[name]() for name in ("PNG", "JPEG", "GIF, animated", "PDF", "TIFF", "MP4, H.264", "TIFF, three pages")
}


def settled(source: Source, limits: RequestLimits = LIMITS) -> Job:
    [checked] = check([source], limits, WORK)
    head = first_bytes(checked.contents[0].encoded(), 2048, base64=True)  # type: ignore[union-attr]
    return settle(checked, [head], limits, WORK).job


@pytest.mark.parametrize(
    ("name", "kind", "job"),
    [
        ("PNG", "image", PictureJob),
        ("PNG", "file", PictureJob),
        ("PNG", "video", ClipJob),
        ("PDF", "image", PagesJob),
        ("TIFF", "image", PagesJob),
        ("MP4, H.264", "image", ClipJob),
        ("MP4, H.264", "file", ClipJob),
        ("GIF, animated", "file", PictureJob),
    ],
)
def test_the_bytes_decide_what_is_done(name: str, kind: MediaKind, job: type[Job]) -> None:
    found = settled(source(kind, MADE[name]))
    assert type(found) is job
    assert found.budget == SMALL


def test_pages_of_a_picture_are_its_only_one() -> None:
    assert isinstance(settled(source("file", MADE["PNG"], pages=((1, None),))), PictureJob)
    with pytest.raises(InvalidFile, match="page 2 is not among them"):
        settled(source("file", MADE["PNG"], pages=((1, 1), (2, 2))))
    with pytest.raises(InvalidFile, match="has no pages"):
        settled(source("file", MADE["MP4, H.264"], pages=((1, 1),)))


def test_a_clip_is_refused_wherever_it_stands_where_the_model_is_shown_none() -> None:
    for kind in ("image", "file"):
        with pytest.raises(InvalidVideo, match="shown pictures only"):
            settled(source(kind, MADE["MP4, H.264"]), RequestLimits(takes_clips=False))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limits", "kind", "name"),
    [
        (RequestLimits(max_pictures=0), "file", "PNG"),
        (RequestLimits(max_clips=0), "image", "MP4, H.264"),
        (RequestLimits(max_pages=0), "image", "PDF"),
    ],
)
async def test_what_there_may_be_none_of_is_counted_by_what_it_is(
    limits: RequestLimits, kind: MediaKind, name: str
) -> None:
    async with room(limits) as there:
        with pytest.raises(ApiError, match="more than the 0 allowed") as caught:
            await there.open(source(kind, MADE[name]))
    assert caught.value.param == "here"


async def test_a_file_is_as_large_as_its_kind_may_be_in_any_part() -> None:
    limits = RequestLimits(max_bytes={"image": 500, "video": 10**6, "file": 10**6})
    async with room(limits) as there:
        for kind in ("video", "file"):
            assert await shown(there, kind, MADE["MP4, H.264"]) != "video_too_large at here"
        assert await shown(there, "file", MADE["PNG"]) == "image_file_too_large at here"


async def test_the_pages_of_a_scan_are_chosen_as_those_of_a_pdf() -> None:
    data = MADE["TIFF, three pages"]
    async with room() as there:
        pictures = await there.pictures(source("file", data, pages=((3, 3), (1, 2))))
        assert [picture.page for picture in pictures] == [3, 1, 2]
        assert {picture.original_size for picture in pictures} == {SIZE}
        assert len({picture.patches.tobytes() for picture in pictures}) == 3
        with pytest.raises(InvalidFile, match="has 3 pages: page 4 is not among them"):
            await there.open(source("file", data, pages=((2, 4),)))


async def test_frames_of_a_list_are_pictures_of_any_format() -> None:
    files = [PICTURES[name]() for name in ("PNG", "HEIC", "AVIF", "TIFF", "BMP, 24 bits")]
    urls = tuple(f"data:;base64,{base64.b64encode(data).decode()}" for data in files)
    async with room() as there:
        [clip] = await there.pictures(ClipSource(urls, "here", is_file=False, frames=FrameChoice(sample_fps=1.0)))
        assert isinstance(clip, Clip)
        assert clip.frames == 6


async def test_a_frame_that_is_no_picture_is_named() -> None:
    urls = tuple(f"data:image/png;base64,{base64.b64encode(MADE[name]).decode()}" for name in ("PNG", "PDF"))
    async with room() as there:
        with pytest.raises(ApiError, match="is a PDF") as caught:
            await there.open(ClipSource(urls, "here", is_file=False))
    assert caught.value.param == "here[1]"
