"""Files of HEIC, AVIF, TIFF, bitmaps, animations and streams that lie or are damaged are soon done with, by name.

The same as tests/hostile sends to a whole server.
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from server.core import FrameChoice, PixelBudget
from server.errors import ApiError
from server.media.formats import made_of, recognised
from server.media.limits import DocumentLimits, WorkLimits
from server.media.workers import work
from server.media.workers.channel import Growing
from server.media.workers.jobs import ClipJob, File, Job, PagesJob, PictureJob
from tests.hostile.formats import (
    CLIPS_ANSWERED,
    CLIPS_REFUSED,
    PICTURES_ANSWERED,
    PICTURES_REFUSED,
    SCANS_REFUSED,
)

LIMITS = WorkLimits(documents=DocumentLimits(max_pages=16))
SMALL = PixelBudget(min_pixels=28 * 28, max_pixels=56 * 56)
CPU_S = 10.0
"""Half of what a worker has. The worst, of 100 megapixels, take 1 to 2 s on a quiet machine."""

PICTURE, SCAN = PictureJob("here", 9999, SMALL), PagesJob("here", 9999, SMALL)
SCAN_IN_A_PICTURES_PLACE = PagesJob("here", 9999, SMALL, as_picture=True)
CLIP = ClipJob("here", 9999, SMALL, choice=FrameChoice(nframes=2))


def outcome(job: Job, data: bytes) -> str:
    """`done`, or the code of the refusal; and fails where it takes long."""
    started = time.process_time()
    memory = Growing()
    try:
        work.do(_with(job, data), memoryview(data), LIMITS, memory)
        said = "done"
    except ApiError as error:
        said = str(error.code)
    finally:
        memory.close()
        Growing.forget()
    seconds = time.process_time() - started
    print(f"{seconds:.2f} s: {said}")
    assert seconds < CPU_S
    return said


def _with(job: Job, data: bytes) -> Job:
    return replace(job, files=(File(len(data), base64=False),))


def picture_job(data: bytes) -> Job:
    found = recognised(data)
    assert found is not None
    return SCAN_IN_A_PICTURES_PLACE if made_of(found, "image") == "pages" else PICTURE


@pytest.mark.parametrize("name", PICTURES_REFUSED)
def test_pictures_are_refused_by_name(name: str) -> None:
    make, code = PICTURES_REFUSED[name]
    data = make()
    assert outcome(picture_job(data), data) == code


@pytest.mark.parametrize("name", PICTURES_ANSWERED)
def test_odd_pictures_are_read(name: str) -> None:
    data = PICTURES_ANSWERED[name]()
    assert outcome(picture_job(data), data) == "done"


@pytest.mark.parametrize("name", CLIPS_REFUSED)
def test_clips_are_refused_by_name(name: str) -> None:
    make, code = CLIPS_REFUSED[name]
    assert outcome(CLIP, make()) == code


@pytest.mark.parametrize("name", CLIPS_ANSWERED)
def test_odd_clips_are_read(name: str) -> None:
    assert outcome(CLIP, CLIPS_ANSWERED[name]()) == "done"


@pytest.mark.parametrize("name", SCANS_REFUSED)
def test_scans_are_refused_by_name(name: str) -> None:
    make, code = SCANS_REFUSED[name]
    assert outcome(SCAN, make()) == code
