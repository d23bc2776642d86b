"""How many prompt tokens media will take, guessed before anything is fetched or decoded."""

from __future__ import annotations

from collections.abc import Sequence

import pybase64

from server.core import ClipSource, DocumentSource, PictureSource, RawString, Source, Url
from server.errors import ApiError
from server.media.headers import size_in_header
from server.media.limits import WorkLimits
from server.media.pixels import FRAMES, target_size
from server.media.sources import MAX_HEADER, base64_start
from server.media.workers.jobs import File, Job, PictureJob

HEAD_CHARACTERS = 1 << 17
"""Of base64. The size of a JPEG stands behind its metadata, which often hold a small picture of their own."""
DECODED_BYTES_A_PIXEL = 12
"""At most, of the decoders that are used: RGBA beside RGB, and what resizing keeps."""
FILE_COPIES = 3
LEAST_MEMORY = 16 << 20
UNKNOWN_PIXELS = 1_000_000
"""Of what is not here yet: what cameras and scanners send is mostly larger, what web pages show is smaller."""
UNKNOWN_FRAMES = 64
UNKNOWN_PAGES = 4


def estimated_tokens(sources: Sequence[Source], work: WorkLimits) -> int:
    """A guess that is exact for pictures that came along and say their size at their beginning."""
    return sum(_tokens(source, work) for source in sources)


def _tokens(source: Source, work: WorkLimits) -> int:
    unknown = work.tokens(min(source.budget.max_pixels or UNKNOWN_PIXELS, UNKNOWN_PIXELS, work.pixels.max_pixels))
    match source:
        case PictureSource():
            return _picture_tokens(source, work) or unknown
        case ClipSource(is_file=False):
            return unknown * len(source.urls) // FRAMES
        case ClipSource():
            return work.tokens(min(work.clips.total_pixels, work.clips.frame_max_pixels * UNKNOWN_FRAMES)) // FRAMES
        case DocumentSource():
            return unknown * UNKNOWN_PAGES


def _picture_tokens(source: PictureSource, work: WorkLimits) -> int:
    """From the picture's own header; 0 where that cannot be read here. No pixel is decoded."""
    size = _size_in_header(source.url)
    if size is None:
        return 0
    try:
        height, width = target_size(size[1], size[0], source.budget, work.pixels, param=source.param)
    except ApiError:  # whoever decodes it will say so, and has looked more closely
        return 0
    return work.tokens(height * width)


def decode_memory(job: Job, files: Sequence[bytes], most: int) -> int:
    """Bytes that a worker will take for a job, by what the file says of itself; `most`, where that is not known.

    A picture of 100 megapixels in 400 KB takes 1.2 GB; one from a phone some 150 MB.
    """
    if not isinstance(job, PictureJob):
        return most
    size = _size_of_file(files[0], job.files[0])
    if size is None:
        return most
    return min(most, size[0] * size[1] * DECODED_BYTES_A_PIXEL + FILE_COPIES * len(files[0]) + LEAST_MEMORY)


def _size_of_file(content: bytes, file: File) -> tuple[int, int] | None:
    head = content[:HEAD_CHARACTERS]
    if not file.base64:
        return size_in_header(head)
    if file.escaped:
        head = _without_escapes(head)
    return _size_in_base64(head)


def _size_in_base64(head: bytes) -> tuple[int, int] | None:
    try:
        return size_in_header(pybase64.b64decode(head[: len(head) // 4 * 4]))
    except ValueError:
        return None


def _without_escapes(head: bytes) -> bytes:
    for escaped, plain in ((b"\\/", b"/"), (b"\\u002B", b"+"), (b"\\u002b", b"+")):
        head = head.replace(escaped, plain)
    return head


def _size_in_header(url: Url) -> tuple[int, int] | None:
    """Width and height in pixels, of a picture that came along."""
    head = url.head(HEAD_CHARACTERS) if isinstance(url, RawString) else url[:HEAD_CHARACTERS].encode("ascii", "replace")
    start = base64_start(head[:MAX_HEADER].decode("latin-1"), is_raw=isinstance(url, RawString))
    if start is None or head[:MAX_HEADER].partition(b":")[0] != b"data":
        return None
    content = head[start:]
    return _size_in_base64(_without_escapes(content) if isinstance(url, RawString) and url.is_escaped else content)
