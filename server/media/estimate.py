"""How many prompt tokens media will take, guessed before anything is fetched or decoded."""

from __future__ import annotations

from collections.abc import Sequence

from server.core import ClipSource, DocumentSource, PictureSource, RawString, Source, Url
from server.errors import ApiError, MediaKind
from server.media import formats
from server.media.formats import Becomes
from server.media.headers import size_in_header
from server.media.heads import first_bytes
from server.media.limits import WorkLimits
from server.media.pixels import FRAMES, target_size
from server.media.sources import MAX_HEADER, base64_start
from server.media.workers.jobs import Job, PictureJob

HEAD_BYTES = 3 << 15
"""The size of a JPEG stands behind its metadata, which often hold a small picture of their own."""
DECODED_BYTES_A_PIXEL = 15
"""At most, of most decoders that are used: RGBA or CMYK beside RGB, and what resizing keeps."""
MORE_BYTES_A_PIXEL = {"WebP": 18, "HEIC": 18}
"""Of libwebp, which has two canvases, and libheif, which has planes of brightness and colour."""
FILE_COPIES = 3
LEAST_MEMORY = 16 << 20
UNKNOWN_PIXELS = 1_000_000
"""Of what is not here yet: what cameras and scanners send is mostly larger, what web pages show is smaller."""
UNKNOWN_FRAMES = 64
UNKNOWN_PAGES = 4
KINDS: dict[type[Source], MediaKind] = {PictureSource: "image", ClipSource: "video", DocumentSource: "file"}
"""Of the parts that sources of one file come from."""


def estimated_tokens(sources: Sequence[Source], work: WorkLimits) -> int:
    """A guess that is exact for pictures that came along and say their size at their beginning."""
    return sum(_tokens(source, work) for source in sources)


def _tokens(source: Source, work: WorkLimits) -> int:
    unknown = work.tokens(min(source.budget.max_pixels or UNKNOWN_PIXELS, UNKNOWN_PIXELS, work.pixels.max_pixels))
    if isinstance(source, ClipSource) and not source.is_file:
        return unknown * len(source.urls) // FRAMES
    kind = KINDS[type(source)]
    head = _head(source.urls[0] if isinstance(source, ClipSource) else source.url)
    match _made_of(head, kind):
        case Becomes.PICTURE:
            return _picture_tokens(head, source, work) or unknown
        case Becomes.CLIP:
            return work.tokens(min(work.clips.total_pixels, work.clips.frame_max_pixels * UNKNOWN_FRAMES)) // FRAMES
        case Becomes.PAGES:
            pages = UNKNOWN_PAGES if kind == "file" or formats.recognised(head) is formats.PDF else 1
            return (_picture_tokens(head, source, work) or unknown) * pages


def _made_of(head: bytes, kind: MediaKind) -> Becomes:
    """What a file becomes; what the part is made for, where that cannot be told yet."""
    found = formats.recognised(head)
    return (found and formats.made_of(found, kind)) or formats.MADE_FOR[kind]


def _picture_tokens(head: bytes, source: Source, work: WorkLimits) -> int:
    """From the picture's own header; 0 where that cannot be read here. No pixel is decoded."""
    size = size_in_header(head)
    if size is None:
        return 0
    try:
        height, width = target_size(size[1], size[0], source.budget, work.pixels, param=source.param)
    except ApiError:  # whoever decodes it will say so, and has looked more closely
        return 0
    return work.tokens(height * width)


def decode_memory(job: Job, pieces: Sequence[bytes], most: int) -> int:
    """Bytes that a worker will take for a job, by what the file says of itself; `most`, where that is not known.

    A picture of 100 megapixels in 400 KB takes 1.2 GB; one from a phone some 150 MB.
    """
    if not isinstance(job, PictureJob):
        return most
    file = job.files[0]
    head = first_bytes(pieces, HEAD_BYTES, base64=file.base64, escaped=file.escaped)
    size = size_in_header(head or b"")
    if size is None:
        return most
    found = formats.recognised(head or b"")
    each = MORE_BYTES_A_PIXEL.get(found.name if found else "", DECODED_BYTES_A_PIXEL)
    return min(most, size[0] * size[1] * each + FILE_COPIES * file.size + LEAST_MEMORY)


def _head(url: Url) -> bytes:
    """The first bytes of a file that came along, else none."""
    if isinstance(url, RawString):
        head, is_raw, escaped = url.head(HEAD_BYTES * 4 // 3), True, url.is_escaped
    else:
        head, is_raw, escaped = url[: HEAD_BYTES * 4 // 3].encode("ascii", "replace"), False, False
    start = base64_start(head[:MAX_HEADER].decode("latin-1"), is_raw=is_raw)
    if start is None or head[:MAX_HEADER].partition(b":")[0] != b"data":
        return b""
    return first_bytes((head[start:],), HEAD_BYTES, base64=True, escaped=escaped) or b""
