"""What the server asks of a decode worker, and what comes back: plain data, nothing that runs.

The server is trusted by its workers, so jobs are pickled. A worker has handled a stranger's file and is not trusted by
the server: its answers are JSON, checked field by field.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from server.core import Clip, FrameChoice, Picture, PixelBudget
from server.errors import (
    ApiError,
    BadRequest,
    ContextLengthExceeded,
    InternalError,
    InvalidFile,
    InvalidImage,
    InvalidVideo,
    MediaKind,
)
from server.media.limits import WorkLimits, patch_bytes
from server.media.pixels import picture_tokens
from server.media.workers.channel import Octets


@dataclass(frozen=True, slots=True)
class File:
    """One of the files of a job, as it lies in the attached memory: one after the other."""

    size: int
    base64: bool
    """Whether it is still encoded."""
    escaped: bool = False
    """Whether that stands there with JSON's escapes."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something to decode. `max_tokens` bounds what the result may take in the prompt."""

    param: str
    max_tokens: int
    budget: PixelBudget = field(default_factory=PixelBudget)
    files: tuple[File, ...] = ()


@dataclass(frozen=True, slots=True)
class PictureJob(Job):
    """One picture file, resized to `budget`."""


@dataclass(frozen=True, slots=True)
class ClipJob(Job):
    """One clip file, or with `is_file` false the pictures that are its frames."""

    is_file: bool = True
    choice: FrameChoice = field(default_factory=FrameChoice)


@dataclass(frozen=True, slots=True)
class PagesJob(Job):
    """The pages of a document or scan, each resized to `budget`."""

    pages: tuple[tuple[int, int | None], ...] = ()
    dpi: float | None = None
    password: str | None = field(default=None, repr=False)
    as_picture: bool = False
    """Whether a scan of a single page is a picture: it stands where one is expected."""


LETTERS_MISSING = (
    "Some letters of this page are missing: the document does not hold its fonts, and this server has none for them."
)
WARNINGS = (LETTERS_MISSING,)
"""What a worker may say of a page. Its own words would be a stranger's."""

KIND_OF: dict[type[Job], MediaKind] = {PictureJob: "image", ClipJob: "video", PagesJob: "file"}
"""What an error about a job is called."""

ERRORS: dict[str, type[ApiError]] = {
    kind.__name__: kind
    for kind in (BadRequest, InvalidImage, InvalidVideo, InvalidFile, ContextLengthExceeded, InternalError)
}
"""What a worker may answer with instead of a result."""


@dataclass(frozen=True, slots=True)
class Patches:
    """How many patches there are in time, height and width, and how many bytes each has."""

    grid_thw: tuple[int, int, int]
    bytes_each: int

    @property
    def size(self) -> int:
        """Bytes of all of them."""
        return math.prod(self.grid_thw) * self.bytes_each


@dataclass(frozen=True, slots=True)
class Cut:
    """A picture, clip or page, cut into patches: all about it but the patches themselves."""

    patches: Patches
    original_size: tuple[int, int]
    page: int | None = None
    fps: float | None = None
    """Of a clip: frames a second among those that were taken."""
    seconds: tuple[float, ...] = ()
    """Of a clip file: when each of these frames is shown."""
    warnings: tuple[str, ...] = ()
    """Of a page: what is not as it should be."""


def pack_job(job: Job) -> bytes:
    """A job as a message."""
    return pickle.dumps(job)


def unpack_job(message: bytes) -> Job:
    """A message from the server as a job."""
    job: Job = pickle.loads(message)  # noqa: S301  it comes from the server, which starts its workers itself
    return job


def pack_cuts(cuts: Sequence[Cut]) -> bytes:
    """A result as a message; the patches are attached in one piece of memory, one after the other."""
    return orjson.dumps({"cuts": cuts})


def pack_error(error: ApiError) -> bytes:
    """An error as a message."""
    return orjson.dumps(
        {"error": type(error).__name__, "message": error.message, "code": error.code, "param": error.param}
    )


def unpack_answer(message: bytes) -> list[Cut]:
    """A worker's message.

    Raises the ApiError that it holds, and ValueError for anything that no worker of ours would say.
    """
    match orjson.loads(message):
        case {"cuts": list(cuts)}:
            return [_cut(cut) for cut in cuts]
        case {"error": str(name), "message": str(text), "code": str() | None as code, "param": str() | None as param}:
            if name in ERRORS:
                raise ERRORS[name](text, code=code, param=param)
    raise ValueError("a worker's answer is malformed")


def require_wanted(job: Job, cuts: Sequence[Cut], limits: WorkLimits) -> None:
    """Hold a worker's result against what was asked of it.

    Raises ValueError for what no worker of ours makes of such a job: more than one picture, a page that nobody asked
    for, patches of another size, or more tokens than there is room for.
    """
    each = patch_bytes(limits.pixels.patch)
    grids = [cut.patches.grid_thw for cut in cuts]
    if (
        any(cut.patches.bytes_each != each for cut in cuts)
        or sum(picture_tokens(grid, limits.pixels.merge) for grid in grids) > job.max_tokens
        or not SHAPES[type(job)](job, cuts)
    ):
        raise ValueError("a worker's answer is not what it was asked for")


def _is_picture(job: Job, cuts: Sequence[Cut]) -> bool:
    return len(cuts) == 1 and cuts[0].patches.grid_thw[0] == 1 and cuts[0].fps is None and cuts[0].page is None


def _is_clip(job: ClipJob, cuts: Sequence[Cut]) -> bool:
    return len(cuts) == 1 and cuts[0].fps is not None and cuts[0].page is None


def _are_pages(job: PagesJob, cuts: Sequence[Cut]) -> bool:
    if job.as_picture and _is_picture(job, cuts):
        return True
    ranges = job.pages or ((1, None),)
    return all(
        cut.fps is None
        and cut.patches.grid_thw[0] == 1
        and cut.page is not None
        and any(first <= cut.page and (last is None or cut.page <= last) for first, last in ranges)
        for cut in cuts
    )


SHAPES: dict[type[Job], Callable[[Any, Sequence[Cut]], bool]] = {
    PictureJob: _is_picture,
    ClipJob: _is_clip,
    PagesJob: _are_pages,
}
"""Whether a result is of the kind that each kind of job has."""


def pictures_of(cuts: Sequence[Cut], memory: Octets, digest: str) -> tuple[Picture, ...]:
    """The pictures of a result; `digest` names what was decoded, and each of several gets a name of its own."""
    pictures: list[Picture] = []
    start = 0
    for number, cut in enumerate(cuts):
        patches = memory[start : start + cut.patches.size].reshape(-1, cut.patches.bytes_each)
        start += cut.patches.size
        name = digest if len(cuts) == 1 else f"{digest}-{number}"
        if cut.fps is None:
            pictures.append(
                Picture(patches, cut.patches.grid_thw, name, cut.original_size, page=cut.page, warnings=cut.warnings)
            )
        else:
            pictures.append(
                Clip(patches, cut.patches.grid_thw, name, cut.original_size, fps=cut.fps, seconds=cut.seconds)
            )
    return tuple(pictures)


def _cut(value: Any) -> Cut:
    match value:
        case {
            "patches": {"grid_thw": [int(t), int(h), int(w)], "bytes_each": int(bytes_each)},
            "original_size": [int(width), int(height)],
            "page": int() | None as page,
            "fps": float() | None as fps,
            "seconds": list(seconds),
            "warnings": list(warnings),
        } if (
            all(isinstance(second, float) for second in seconds)
            and min(t, h, w, bytes_each, width, height) >= 1
            and len(warnings) <= len(WARNINGS)
            and all(warning in WARNINGS for warning in warnings)
        ):
            return Cut(Patches((t, h, w), bytes_each), (width, height), page, fps, tuple(seconds), tuple(warnings))
    raise ValueError("a worker's answer is malformed")
