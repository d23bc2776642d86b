"""What a decode worker does with a job. Runs in worker processes only: it imports torch, FFmpeg and PDFium.

Nothing here waits, keeps anything from one job to the next, or knows the process around it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import orjson
import pybase64

from server.errors import BadRequest, InvalidFile, InvalidImage, as_kind
from server.media import formats
from server.media.decoding.animation import decode_animation
from server.media.decoding.decode import open_page, open_pages, open_picture
from server.media.decoding.patches import cut_into
from server.media.decoding.pdf import Fit, chosen_pages, draw_pages
from server.media.decoding.resize import resize
from server.media.decoding.samples import CLIPS, PAGES, PICTURES
from server.media.decoding.video import DecodedClip, decode_clip
from server.media.frames import listed_frame_size
from server.media.heads import URL_SAFE, WHITESPACE
from server.media.limits import WorkLimits, too_many_tokens
from server.media.pixels import FRAMES, target_size
from server.media.sources import bad_base64
from server.media.workers.box import seccomp
from server.media.workers.channel import Growing, Octets
from server.media.workers.jobs import KIND_OF, LETTERS_MISSING, ClipJob, Cut, File, Job, PagesJob, PictureJob

seccomp()  # as all that is heavy: once, for all workers

FEW = 4096
"""Prompt tokens; more than a sample has."""
ShownPage = tuple[int | None, Octets, tuple[str, ...]]
"""The number of a page, its pixels, and what its reader should know."""
Samples = Mapping[str, Callable[[], bytes]]


def do(job: Job, files: memoryview, limits: WorkLimits, memory: Growing) -> list[Cut]:
    """Decode the files of a job, which lie one after the other, and write its patches into `memory`.

    Raises BadRequest and its kinds: see the functions that it calls. MemoryError where an allowed file needs more
    memory than the worker may have.
    """
    data, start = [], 0
    for file in job.files:
        data.append(_bytes_of(files[start : start + file.size], job, file))
        start += file.size
    return list(WAYS[type(job)](job, data, limits, memory))


def rehearse(limits: WorkLimits) -> None:
    """Decode one file of each kind, so that libraries load what they load late: soon there will be no files.

    In the worker, not where all are forked from: what draws and resizes would start threads there.
    """
    kinds: tuple[tuple[Job, Samples], ...] = (
        (PictureJob("", FEW), PICTURES),
        (ClipJob("", FEW), CLIPS),
        (PagesJob("", FEW), PAGES),
    )
    for job, make in ((job, make) for job, samples in kinds for make in samples.values()):
        content = make()
        memory = Growing()
        with contextlib.suppress(BadRequest):  # an operator's limits may allow nothing so small
            do(replace(job, files=(File(len(content), base64=False),)), memoryview(content), limits, memory)
        memory.close()
    Growing.forget()


def _bytes_of(content: memoryview, job: Job, file: File) -> bytes:
    if not file.base64:
        return bytes(content)
    try:
        if file.escaped:
            content = memoryview(orjson.loads(b"".join((b'"', content, b'"'))).encode())
        return pybase64.b64decode(content, validate=True)
    except ValueError:
        pass  # many clients wrap their lines, and some have other habits
    try:
        return pybase64.b64decode(_standard(bytes(content)), validate=True)
    except ValueError:
        raise bad_base64(KIND_OF[type(job)], job.param) from None


def _standard(encoded: bytes) -> bytes:
    """Base64 in the standard alphabet (RFC 4648, 4): from that of URLs, from percent escapes, without its padding."""
    if b"%" in encoded:
        encoded = unquote_to_bytes(encoded)
    encoded = encoded.translate(URL_SAFE, WHITESPACE)
    return encoded if encoded.endswith(b"=") else encoded + b"=" * (-len(encoded) % 4)


def _picture(job: PictureJob, data: list[bytes], limits: WorkLimits, memory: Growing) -> Iterator[Cut]:
    picture = open_picture(data[0], limits.decode, param=job.param)
    height, width = target_size(picture.height, picture.width, job.budget, limits.pixels, param=job.param)
    _Room(job, limits).take(1, height, width)
    frames = resize(picture.pixels(height, width), height, width)[np.newaxis]
    yield Cut(cut_into(memory, frames, limits.pixels.patch), (picture.width, picture.height))


def _clip(job: ClipJob, data: list[bytes], limits: WorkLimits, memory: Growing) -> Iterator[Cut]:
    if job.is_file:
        clip = _clip_file(job, data[0], limits)
        frames, original, fps, seconds = clip.frames, clip.original_size, clip.fps, clip.seconds
    else:
        frames, original, fps = _listed_frames(job, data, limits)
        seconds = ()
    _Room(job, limits).take(*frames.shape[:3])
    yield Cut(cut_into(memory, frames, limits.pixels.patch), original, fps=fps, seconds=seconds)


def _clip_file(job: ClipJob, data: bytes, limits: WorkLimits) -> DecodedClip:
    found = formats.recognised(data)
    if found is not None and found.clip is not formats.Decoder.FFMPEG and found.picture is not None:
        return decode_animation(data, job.choice, job.budget, limits.clips, limits.decode, param=job.param)
    return decode_clip(data, job.choice, job.budget, limits.clips, param=job.param)


def _listed_frames(job: ClipJob, data: list[bytes], limits: WorkLimits) -> tuple[Octets, tuple[int, int], float]:
    pictures = [open_picture(file, limits.decode, param=f"{job.param}[{number}]") for number, file in enumerate(data)]
    sizes = [(picture.height, picture.width) for picture in pictures]
    height, width = listed_frame_size(sizes, job.budget, job.choice, limits.clips, param=job.param)
    _Room(job, limits).take(len(pictures), height, width)
    frames = np.empty((len(pictures), height, width, 3), np.uint8)
    for frame, picture in zip(frames, pictures, strict=True):
        frame[...] = resize(picture.pixels(height, width), height, width)
    fps = limits.clips.fps if job.choice.sample_fps is None else job.choice.sample_fps
    return frames, (pictures[0].width, pictures[0].height), fps


def _pages(job: PagesJob, data: list[bytes], limits: WorkLimits, memory: Growing) -> Iterator[Cut]:
    room = _Room(job, limits)
    whole: list[tuple[int, int]] = []

    def fit(height: int, width: int) -> tuple[int, int]:
        whole.append((width, height))
        try:
            size = target_size(height, width, job.budget, limits.pixels, param=job.param)
        except InvalidImage as error:
            if job.as_picture:
                raise
            raise InvalidFile(f"A page cannot be shown: {error.message}", param=job.param) from None
        room.take(1, *size)
        return size

    found = formats.recognised(data[0])
    if found is not None and found.pages is formats.Decoder.PILLOW:
        drawn = _scanned_pages(job, data[0], limits, fit)
    else:
        drawn = _drawn_pages(job, data[0], limits, fit)
    for number, pixels, warnings in drawn:
        patches = cut_into(memory, pixels[np.newaxis], limits.pixels.patch)
        yield Cut(patches, whole[-1], page=number, warnings=warnings)


def _drawn_pages(job: PagesJob, data: bytes, limits: WorkLimits, fit: Fit) -> Iterator[ShownPage]:
    drawn = draw_pages(data, job.pages, job.dpi, limits.documents, password=job.password, param=job.param, fit=fit)
    for number, pixels, is_complete in drawn:
        yield number, pixels, () if is_complete else (LETTERS_MISSING,)


def _scanned_pages(job: PagesJob, data: bytes, limits: WorkLimits, fit: Fit) -> Iterator[ShownPage]:
    """The pages of a scan with their numbers; none for a single one that is a picture, since it stands where one is."""
    try:
        pages = open_pages(data, param=job.param)
        numbers = chosen_pages(job.pages, len(pages), limits.documents, job.param)
        is_picture = job.as_picture and len(pages) == 1
        for number in numbers:
            page = open_page(data, pages[number - 1], limits.decode, param=job.param)
            size = fit(page.height, page.width)
            yield None if is_picture else number, resize(page.pixels(*size), *size), ()
    except InvalidImage as error:
        raise error if job.as_picture else as_kind(error, "file") from None


class _Room:
    """What is left of the prompt for a job, so that nothing is resized that cannot be shown."""

    def __init__(self, job: Job, limits: WorkLimits) -> None:
        self._most = job.max_tokens
        self._left = job.max_tokens * limits.pixels.token_pixels

    def take(self, frames: int, height: int, width: int) -> None:
        """Raises ContextLengthExceeded where so many frames do not fit."""
        self._left -= math.ceil(frames / FRAMES) * height * width
        if self._left < 0:
            raise too_many_tokens(self._most)


WAYS: dict[type[Job], Callable[[Any, list[bytes], WorkLimits, Growing], Iterator[Cut]]] = {
    PictureJob: _picture,
    ClipJob: _clip,
    PagesJob: _pages,
}
"""How each kind of job is done."""
