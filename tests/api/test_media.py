"""Clips, documents and controls over HTTP, as the engine gets them."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pytest
from PIL import Image

from server.core import Clip
from server.media.workers.jobs import LETTERS_MISSING
from tests.api.house import House, chunks, data_url, error_of, image_url, open_house, plain, png
from tests.fuzz.pdf_files import document, encrypted
from tests.waiting import eventually

SIZED = {"resized_height": 56, "resized_width": 84}
GREYS = [plain((grey, grey, grey), 84, 56) for grey in (0, 80, 160, 240)]


def film(count: int = 8, fps: int = 4) -> str:
    """A clip whose frames get brighter, as a data URL."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as file:
        stream = file.add_stream("libx264", rate=fps, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 84, 56, "yuv420p"
        for number in range(count):
            frame = np.full((56, 84, 3), 30 * number, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
    return data_url(buffer.getvalue(), "video/mp4")


def pdf(*colours: tuple[int, int, int]) -> str:
    buffer = io.BytesIO()
    first, *rest = (Image.new("RGB", (112, 56), colour) for colour in colours)
    first.save(buffer, "PDF", save_all=True, append_images=rest, resolution=72, quality=100)
    return data_url(buffer.getvalue(), "application/pdf")


def brightness(clip: Clip) -> list[int]:
    """Of each frame; patches are [channels, 2 frames, pixels]."""
    pairs = clip.patches.reshape(clip.grid_thw[0], -1, 3, 2, 196)
    return [round(float(value)) for pair in pairs for value in pair.mean(axis=(0, 1, 3))]


def only_clip(house: House) -> Clip:
    [placed] = house.last_request.prompt.pictures
    assert isinstance(placed.picture, Clip)
    return placed.picture


FRAMES = [data_url(frame) for frame in GREYS]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "video", "video": FRAMES},
        {"type": "video", "video": FRAMES, "sample_fps": 1.0, "raw_fps": 30},
    ],
)
def test_a_list_of_frames_is_a_clip(house: House, part: dict[str, Any]) -> None:
    assert house.ask([{**part, **SIZED}]).status_code == 200
    clip = only_clip(house)
    assert clip.grid_thw == (2, 4, 6)
    assert brightness(clip) == [0, 80, 160, 240]
    assert "<|vision_start|>" + "<|video_pad|>" * 12 + "<|vision_end|>" in house.last_prompt


@pytest.mark.parametrize(
    ("controls", "frames"),
    [
        ({"nframes": 4}, [0, 60, 150, 210]),
        ({"fps": 4}, [0, 30, 60, 90, 120, 150, 180, 210]),
        ({"nframes": 2, "video_start": 1.0}, [120, 210]),
        ({"fps": 4, "max_frames": 2}, [0, 210]),
        ({"fps": 4, "video_end": 0.8}, [0, 30, 60, 90]),
    ],
)
@pytest.mark.parametrize("form", ["video_url", "video"])
def test_a_film_is_sampled_as_asked(house: House, controls: dict[str, Any], frames: list[int], form: str) -> None:
    named = {"video_url": {"url": film()}} if form == "video_url" else {"video": film()}
    reply = house.ask([{"type": form, **named, **controls, **SIZED}])
    assert reply.status_code == 200, reply.text
    assert brightness(only_clip(house)) == pytest.approx(frames, abs=4)


def test_request_wide_wishes_hold_for_every_part_that_says_nothing_itself(house: House) -> None:
    picture = image_url(png(Image.new("RGB", (280, 280))))
    wishes = {"min_pixels": 784, "max_pixels": 28 * 28 * 4, "num_frames": 2}
    parts = [picture, {**picture, "max_pixels": 28 * 28 * 9}, {"type": "video", "video": film(), **SIZED}]
    assert house.ask(parts, mm_processor_kwargs=wishes).status_code == 200
    lengths = [placed.length for placed in house.last_request.prompt.pictures]
    assert lengths == [4, 9, 6]


@pytest.mark.parametrize(("detail", "tokens"), [("low", 64), ("high", 64), ("auto", 64), ("original", 256)])
def test_detail_is_a_budget(detail: str, tokens: int) -> None:
    """A picture of 448 x 448; the server's default is 224 x 224, its ceiling 448 x 448."""
    content = [image_url(png(Image.new("RGB", (448, 448))), detail=detail)]
    with open_house(max_pixels=224 * 224, max_pixels_ceiling=448 * 448) as house:
        assert house.ask(content).status_code == 200
        assert house.last_request.prompt.pictures[0].length == tokens


def test_pages_are_pictures_in_the_order_asked_for(house: House) -> None:
    part = {"type": "file", "file": {"file_data": pdf((255, 0, 0), (0, 255, 0), (0, 0, 255)), "filename": "a.pdf"}}
    assert house.ask([{**part, "dpi": 72}]).status_code == 200
    assert [placed.picture.page for placed in house.last_request.prompt.pictures] == [1, 2, 3]
    assert house.ask([{**part, "dpi": 72, "pages": "3,1-2"}]).status_code == 200
    pictures = [placed.picture for placed in house.last_request.prompt.pictures]
    assert [picture.page for picture in pictures] == [3, 1, 2]
    assert pictures[0].patches.reshape(-1, 3, 392)[:, 2].mean() > 250
    assert house.last_prompt.count("<|vision_start|>") == 3


def test_plain_base64_is_a_document_too(house: House) -> None:
    encoded = pdf((9, 9, 9)).partition(",")[2]
    assert house.ask([{"type": "file", "file": {"file_data": encoded}}]).status_code == 200


@pytest.mark.parametrize("parameters", [";codecs=vp9,opus", ';name="a,b;base64,.mp4"', ";name=" + "%D8%B5" * 200])
def test_a_clip_comes_in_as_a_browsers_recorder_names_it(house: House, parameters: str) -> None:
    url = film().replace(";base64,", f"{parameters};base64,")
    assert house.ask([{"type": "video_url", "video_url": {"url": url}}]).status_code == 200
    [placed] = house.last_request.prompt.pictures
    assert isinstance(placed.picture, Clip)


def locked_file(**more: Any) -> dict[str, Any]:
    data = data_url(encrypted(b"1 0 0 rg 0 0 200 100 re f", b"open"), "application/pdf")
    return {"type": "file", "file": {"file_data": data, **more}}


def test_a_document_opens_with_its_password_and_nobody_is_told_of_it(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    assert house.ask([locked_file(password="open")]).status_code == 200
    [placed] = house.last_request.prompt.pictures
    assert placed.picture.patches.reshape(-1, 3, 392)[:, 0].mean() > 250
    for wrong, place in (
        ({}, "file_data"),
        ({"password": "geheim"}, "password"),
        ({"password": ["geheim"]}, "password"),
    ):
        error = error_of(house.ask([locked_file(**wrong)]), 400)
        assert error["param"] == f"messages[0].content[0].file.{place}"
        assert "password" in error["message"]
        assert "geheim" not in str(error)
    # What is kept of the page is not for who does not know the password.
    assert house.ask([locked_file(password="open")]).status_code == 200
    assert house.ask([locked_file()]).status_code == 400
    assert "geheim" not in caplog.text


@pytest.mark.parametrize("how", ["warn", "refuse"])
def test_a_page_whose_letters_no_font_has_is_shown_with_a_warning_or_refused(how: Literal["warn", "refuse"]) -> None:
    note = b"<</Type/Annot/Subtype/FreeText/Rect[9 9 99 30]/F 4/DA(/Helv 9 Tf 0 g)/Contents <feffd80cdc00>>>"
    page = document(b"", page=b"/Annots[10 0 R]", more=[note])
    part = {"type": "file", "file": {"file_data": data_url(page, "application/pdf")}}
    with open_house(missing_letters=how) as house:
        reply = house.ask([part], return_media_info=True)
        if how == "refuse":
            assert "Letters of page 1" in error_of(reply, 400)["message"]
        else:
            [info] = reply.json()["media_info"]
            assert info["warnings"] == [LETTERS_MISSING]


@pytest.mark.parametrize("stream", [False, True])
def test_the_reply_says_what_became_of_everything_when_asked(house: House, stream: bool) -> None:
    parts = [
        {"type": "text", "text": "Look:"},
        image_url(plain((1, 2, 3), 100, 60)),
        {"type": "video", "video": FRAMES, **SIZED},
        {"type": "file", "file": {"file_data": pdf((1, 1, 1), (2, 2, 2))}, "pages": 2, "dpi": 72},
    ]
    reply = house.ask(parts, return_media_info=True, stream=stream)
    told = chunks(reply.content)[0] if stream else reply.json()
    size = {"original_size": {"width": 84, "height": 56}, "resized_size": {"width": 84, "height": 56}}
    assert told["media_info"] == [
        {
            "param": "messages[0].content[1].image_url.url",
            "type": "image",
            "original_size": {"width": 100, "height": 60},
            "resized_size": {"width": 112, "height": 56},
            "tokens": 8,
        },
        {"param": "messages[0].content[2].video", "type": "video", **size, "tokens": 12, "frames": 4, "fps": 2.0},
        {
            "param": "messages[0].content[3].file.file_data",
            "type": "page",
            "page": 2,
            "original_size": {"width": 112, "height": 56},
            "resized_size": {"width": 112, "height": 56},
            "tokens": 8,
        },
    ]
    quiet = house.ask(parts, stream=stream)
    assert "media_info" not in (chunks(quiet.content)[0] if stream else quiet.json())


@pytest.mark.parametrize(
    ("part", "param", "code"),
    [
        (
            {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
            "video_url.url",
            "invalid_video_format",
        ),
        ({"type": "video", "video": "ftp://host/a.mp4"}, "video", "invalid_video_url"),
        ({"type": "video", "video": []}, "video", "invalid_value"),
        ({"type": "video", "video": FRAMES, "nframes": 4}, "nframes", "invalid_value"),
        ({"type": "video", "video": film(), "nframes": 4, "fps": 1}, "nframes", "invalid_value"),
        ({"type": "video", "video": film(), "video_start": 9.0}, "video", "invalid_value"),
        ({"type": "video", "video": film(), "fps": float(0)}, "fps", "invalid_value"),
        (
            {"type": "file", "file": {"file_data": data_url(b"junk", "application/pdf")}},
            "file.file_data",
            "invalid_file_format",
        ),
        ({"type": "file", "file": {"file_data": pdf((1, 1, 1))}, "pages": "2"}, "file.file_data", "invalid_file"),
        ({"type": "file", "file": {"file_data": pdf((1, 1, 1))}, "pages": "x"}, "pages", "invalid_value"),
        ({"type": "file", "file": {"file_data": pdf((1, 1, 1))}, "dpi": 9999}, "file.file_data", "invalid_value"),
        ({"type": "file", "file": {"file_id": "file-1"}}, "file.file_id", None),
        ({"type": "video_url", "video_url": {"url": pdf((1, 1, 1))}}, "video_url.url", "unsupported_video_media_type"),
        ({"type": "file", "file": {"file_data": film()}, "pages": "1"}, "file.file_data", "invalid_file"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(
    house: House, part: dict[str, Any], param: str, code: str | None
) -> None:
    error = error_of(house.ask([part]), 400)
    assert error["param"] == f"messages[0].content[0].{param}"
    assert code is None or error["code"] == code


def test_files_are_read_from_the_folders_that_the_operator_opened(tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(plain((255, 0, 0)))
    with open_house(media_folders=[tmp_path]) as house:
        assert house.ask([image_url(f"file://{tmp_path}/red.png")]).status_code == 200
        error = error_of(house.ask([image_url("file:///etc/passwd")]), 400)
        assert error["code"] == "image_file_not_found"


def test_the_media_room_shows_its_numbers(house: House) -> None:
    assert house.ask([image_url(plain((7, 8, 9)))]).status_code == 200
    assert house.ask([image_url(plain((7, 8, 9)))]).status_code == 200
    shown = house.http.get("/metrics").text
    for name in ("ain_media_jobs_total", 'ain_media_cache_hits_total{cache="prepared"}', "ain_media_memory_bytes 0.0"):
        assert name in shown


def test_workers_that_are_killed_are_replaced_without_a_word(house: House) -> None:
    assert house.services.preparer is not None
    pool = house.services.preparer.pool
    before = set(pool.pids)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: len(pool.pids) == len(before) and not before & set(pool.pids))
    assert house.ask([image_url(plain((3, 1, 4)))]).status_code == 200
