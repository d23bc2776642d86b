"""What a worker answers is held against what it was asked: it has handled a stranger's file."""

from __future__ import annotations

import pytest

from server.core import PixelBudget
from server.media.limits import WorkLimits
from server.media.workers.jobs import ClipJob, Cut, Job, PagesJob, Patches, PictureJob, require_wanted

LIMITS = WorkLimits()
EACH = 3 * 2 * LIMITS.pixels.patch**2
MOST = 100


def cut(grid: tuple[int, int, int] = (1, 4, 4), each: int = EACH, **more: object) -> Cut:
    return Cut(Patches(grid, each), (100, 100), **more)  # type: ignore[arg-type]


PICTURE = PictureJob("p", MOST, PixelBudget())
CLIP = ClipJob("p", MOST, PixelBudget())
PAGES = PagesJob("p", MOST, PixelBudget(), pages=((2, 3), (7, None)))


@pytest.mark.parametrize(
    ("job", "cuts"),
    [
        (PICTURE, [cut()]),
        (PICTURE, [cut((1, 20, 20))]),
        (CLIP, [cut((3, 4, 4), fps=2.0)]),
        (PAGES, [cut(page=2), cut(page=9)]),
        (PagesJob("p", MOST), [cut(page=1)]),
        (PAGES, []),
    ],
)
def test_what_was_asked_for_is_taken(job: Job, cuts: list[Cut]) -> None:
    require_wanted(job, cuts, LIMITS)


@pytest.mark.parametrize(
    ("job", "cuts"),
    [
        (PICTURE, []),
        (PICTURE, [cut()] * 50),
        (PICTURE, [cut(fps=2.0)]),
        (PICTURE, [cut((2, 4, 4))]),
        (PICTURE, [cut(page=1)]),
        (PICTURE, [cut(each=EACH + 1)]),
        (PICTURE, [cut(each=3)]),
        (PICTURE, [cut((1, 20, 22))]),
        (PICTURE, [cut((1, 1 << 20, 1 << 20))]),
        (CLIP, [cut()]),
        (CLIP, [cut(fps=2.0)] * 50),
        (CLIP, [cut((26, 4, 4), fps=2.0)]),
        (PAGES, [cut(page=1)]),
        (PAGES, [cut(page=4)]),
        (PAGES, [cut()]),
        (PAGES, [cut(page=2, fps=1.0)]),
        (PAGES, [cut(page=2)] * 26),
    ],
)
def test_what_was_not_is_refused(job: Job, cuts: list[Cut]) -> None:
    with pytest.raises(ValueError, match="not what it was asked for"):
        require_wanted(job, cuts, LIMITS)
