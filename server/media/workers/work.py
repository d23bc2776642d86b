"""What a decode worker does with a job. Runs in worker processes only: it imports torch, FFmpeg and PDFium.

Nothing here waits, keeps anything from one job to the next, or knows the process around it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote_to_bytes

import numpy as np
import orjson
import pybase64

from server.errors import BadRequest, InvalidFile, InvalidImage
from server.media.decoding.decode import open_picture, sample
from server.media.decoding.patches import cut_into
from server.media.decoding.pdf import draw_pages
from server.media.decoding.resize import resize
from server.media.decoding.video import decode_clip
from server.media.frames import listed_frame_size
from server.media.limits import WorkLimits, too_many_tokens
from server.media.pixels import FRAMES, target_size
from server.media.sources import bad_base64
from server.media.workers.box import seccomp
from server.media.workers.channel import Growing, Octets
from server.media.workers.jobs import KIND_OF, LETTERS_MISSING, ClipJob, Cut, File, Job, PagesJob, PictureJob

seccomp()  # as all that is heavy: once, for all workers

FEW = 4096
"""Prompt tokens; more than a sample has."""
REHEARSED = ("PNG", "JPEG", "WEBP", "GIF")
DOCUMENT = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Annots[<</Type/Annot/Subtype/FreeText/Rect[9 9 99 50]/F 4"
    b"/DA(/Helv 9 Tf 0 g)/Contents<feff0645>>>]/Contents 4 0 R/Resources<</Font<</F<</Type/Font"
    b"/Subtype/Type1/BaseFont/Helvetica>>>>>>>>endobj\n"
    b"4 0 obj<</Length 26>>stream\nBT /F 9 Tf (x) Tj ET     \nendstream endobj\n"
    b"trailer<</Root 1 0 R>>"
)
"""A page with a letter on it and one in a note: fonts are looked for when one is first needed."""
WHITESPACE = b" \t\r\n\f\v"
STANDARD = bytes.maketrans(b"-_", b"+/")


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
    pictures = {kind: sample(kind) for kind in REHEARSED}
    jobs: list[tuple[Job, bytes]] = [(PictureJob("", FEW), content) for content in pictures.values()]
    jobs += [(ClipJob("", FEW), pictures["GIF"]), (PagesJob("", FEW), DOCUMENT)]
    for job, content in jobs:
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
    encoded = encoded.translate(STANDARD, WHITESPACE)
    return encoded if encoded.endswith(b"=") else encoded + b"=" * (-len(encoded) % 4)


def _picture(job: PictureJob, data: list[bytes], limits: WorkLimits, memory: Growing) -> Iterator[Cut]:
    picture = open_picture(data[0], limits.decode, param=job.param)
    height, width = target_size(picture.height, picture.width, job.budget, limits.pixels, param=job.param)
    _Room(job, limits).take(1, height, width)
    frames = resize(picture.pixels(height, width), height, width)[np.newaxis]
    yield Cut(cut_into(memory, frames, limits.pixels.patch), (picture.width, picture.height))


def _clip(job: ClipJob, data: list[bytes], limits: WorkLimits, memory: Growing) -> Iterator[Cut]:
    if job.is_file:
        clip = decode_clip(data[0], job.choice, job.budget, limits.clips, param=job.param)
        frames, original, fps, seconds = clip.frames, clip.original_size, clip.fps, clip.seconds
    else:
        frames, original, fps = _listed_frames(job, data, limits)
        seconds = ()
    _Room(job, limits).take(*frames.shape[:3])
    yield Cut(cut_into(memory, frames, limits.pixels.patch), original, fps=fps, seconds=seconds)


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
            raise InvalidFile(f"A page cannot be shown: {error.message}", param=job.param) from None
        room.take(1, *size)
        return size

    drawn = draw_pages(data[0], job.pages, job.dpi, limits.documents, password=job.password, param=job.param, fit=fit)
    for number, pixels, is_complete in drawn:
        patches = cut_into(memory, pixels[np.newaxis], limits.pixels.patch)
        yield Cut(patches, whole[-1], page=number, warnings=() if is_complete else (LETTERS_MISSING,))


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
