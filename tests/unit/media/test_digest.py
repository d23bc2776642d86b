"""Names of prepared pictures: everything that decides the patches is in them, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core import FrameChoice, PixelBudget
from server.media.digest import digest_of
from server.media.workers.jobs import ClipJob, File, Job, PagesJob, PictureJob

BUDGET = PixelBudget(min_pixels=4 * 784, max_pixels=100 * 784, resized_height=280, resized_width=560)
CHOICE = FrameChoice(
    fps=2.0,
    nframes=8,
    min_frames=4,
    max_frames=16,
    video_start=1.0,
    video_end=9.0,
    total_pixels=10**6,
    sample_fps=3.0,
)
PICTURE = PictureJob("here", 1000, BUDGET)
CLIP = ClipJob("here", 1000, BUDGET, is_file=True, choice=CHOICE)
PAGES = PagesJob("here", 1000, BUDGET, pages=((1, 3), (7, None)), dpi=150.0)
JOBS = (PICTURE, CLIP, PAGES)


def name(job: Job, *data: bytes, tenant: str = "tenant", base64: bool = False) -> str:
    """The name of what a job makes of some files."""
    files = tuple(File(len(file), base64) for file in data)
    return digest_of(replace(job, files=files), data, tenant)


@pytest.mark.parametrize("job", JOBS)
def test_the_same_job_on_the_same_bytes_has_the_same_name(job: Job) -> None:
    assert name(job, b"bytes") == name(replace(job), bytes(bytearray(b"bytes")))
    assert re.fullmatch("[0-9a-f]{64}", name(job, b"bytes"))


@pytest.mark.parametrize("job", JOBS)
def test_where_it_stands_and_how_much_room_is_left_change_nothing(job: Job) -> None:
    elsewhere = replace(job, param="messages[7].content[3]", max_tokens=5)
    assert name(elsewhere, b"bytes") == name(job, b"bytes")


def _budgets() -> list[PixelBudget]:
    others = [replace(BUDGET, **{field.name: getattr(BUDGET, field.name) + 1}) for field in fields(PixelBudget)]
    without = [replace(BUDGET, **{field.name: None}) for field in fields(PixelBudget)]
    return [*others, *without, PixelBudget()]


def _choices() -> list[FrameChoice]:
    others = [replace(CHOICE, **{field.name: getattr(CHOICE, field.name) + 1}) for field in fields(FrameChoice)]
    without = [replace(CHOICE, **{field.name: None}) for field in fields(FrameChoice)]
    return [*others, *without, FrameChoice()]


def test_whatever_changes_the_patches_changes_the_name() -> None:
    names = [name(job, b"bytes") for job in JOBS]
    names += [name(job, b"bytes", tenant="other") for job in JOBS]
    names += [name(job, b"bytes", base64=True) for job in JOBS]
    names += [name(job, data) for job in JOBS for data in (b"bytez", b"byte", b"bytes\0", b"")]
    names += [name(replace(job, budget=budget), b"bytes") for job in JOBS for budget in _budgets()]
    names += [name(replace(CLIP, choice=choice), b"bytes") for choice in _choices()]
    names += [name(replace(CLIP, is_file=False), *data) for data in ([b"bytes"], [b"byt", b"es"], [b"es", b"byt"])]
    names += [name(replace(PAGES, pages=pages), b"bytes") for pages in ((), ((1, 3),), ((7, None), (1, 3)), ((1, 4),))]
    names += [name(replace(PAGES, password=password), b"bytes") for password in ("", "a", "None")]
    names += [name(replace(PAGES, dpi=dpi), b"bytes") for dpi in (None, 151.0)]
    names += [name(replace(PAGES, as_picture=True), b"bytes")]
    assert len(set(names)) == len(names)


def test_every_field_of_a_job_is_either_in_the_name_or_known_not_to_matter() -> None:
    """Add a new field to the changes above, or here."""
    known = {
        PictureJob: {"budget", "files"},
        ClipJob: {"budget", "files", "is_file", "choice"},
        PagesJob: {"budget", "files", "pages", "dpi", "password", "as_picture"},
    }
    for kind, names in known.items():
        assert {field.name for field in fields(kind)} == names | {"param", "max_tokens"}


FILES = st.lists(st.binary(max_size=6), min_size=1, max_size=4)


@settings(deadline=None)
@given(FILES, FILES)
def test_files_do_not_run_into_each_other(one: Sequence[bytes], other: Sequence[bytes]) -> None:
    job = replace(CLIP, is_file=False)
    assert (name(job, *one) == name(job, *other)) == (one == other)


@settings(deadline=None)
@given(st.text(), st.text(), st.binary(max_size=20), st.binary(max_size=20))
def test_no_tenant_can_be_made_to_look_like_another(one: str, other: str, data: bytes, more: bytes) -> None:
    same = (one, data) == (other, more)
    assert (name(PICTURE, data, tenant=one) == name(PICTURE, more, tenant=other)) == same


@pytest.mark.parametrize("tenant", ["", "م", "\ud800", "', PictureJob(", "x" * 10_000])
def test_any_tenant_has_names_of_its_own(tenant: str) -> None:
    assert name(PICTURE, b"bytes", tenant=tenant) != name(PICTURE, b"bytes")
