"""The decoders as a stranger's file meets them, under small limits so that no honest outcome takes long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from server.core import FrameChoice, PixelBudget
from server.errors import ApiError
from server.media.decoding.animation import decode_animation
from server.media.decoding.decode import open_page, open_pages, open_picture
from server.media.decoding.pdf import draw_pages
from server.media.decoding.video import decode_clip
from server.media.formats import Decoder, recognised
from server.media.frames import ClipLimits
from server.media.limits import DecodeLimits, DocumentLimits
from tests.fuzz.seeds import Kind

PICTURES: Final = DecodeLimits(max_pixels=4_000_000)
DOCUMENTS: Final = DocumentLimits(max_pages=4, default_dpi=72, max_pixels=1_000_000)
CLIPS: Final = ClipLimits(
    max_frames=32, hard_max_frames=32, max_seconds=60, max_source_frames=600, max_source_pixels=1_000_000
)
FRAMES: Final = PixelBudget(min_pixels=4 * 784, max_pixels=16 * 784)


def outcome(kind: Kind, data: bytes) -> str:
    """`decoded`, or the code of the refusal. Whatever else is raised is a fault."""
    try:
        DECODERS[kind](data)
    except MemoryError:
        if kind == "clip":  # FFmpeg believes a header that asks for more than there is; a worker refuses it by name
            return "out of memory"
        raise
    except ApiError as refusal:
        if refusal.status != 400 or not refusal.message or len(refusal.message) > 500:
            raise AssertionError("this is no refusal for a client to read") from refusal
        return str(refusal.code)
    return "decoded"


def _picture(data: bytes) -> None:
    picture = open_picture(data, PICTURES, param="here")
    pixels = picture.pixels()
    if pixels.shape != (picture.height, picture.width, 3):
        raise AssertionError(f"promised {picture.height} x {picture.width}, gave {pixels.shape}")
    if 0 in picture.pixels(28, 28).shape:
        raise AssertionError("a reduced picture has no pixels")


def _document(data: bytes) -> None:
    found = recognised(data)
    if found is not None and found.pages is Decoder.PILLOW:
        for page in open_pages(data, param="here")[: DOCUMENTS.max_pages]:
            open_page(data, page, PICTURES, param="here").pixels()
        return
    for _, pixels, _ in draw_pages(data, (), None, DOCUMENTS, param="here"):
        if pixels.size > 3 * DOCUMENTS.max_pixels:
            raise AssertionError(f"a page has {pixels.shape}")


def _clip(data: bytes) -> None:
    found = recognised(data)
    if found is not None and found.clip is not Decoder.FFMPEG and found.picture:
        clip = decode_animation(data, FrameChoice(), FRAMES, CLIPS, PICTURES, param="here")
    else:
        clip = decode_clip(data, FrameChoice(), FRAMES, CLIPS, param="here")
    if len(clip.frames) % 2 or 0 in clip.frames.shape:
        raise AssertionError(f"frames are {clip.frames.shape}")


DECODERS: Final[dict[Kind, Callable[[bytes], None]]] = {"picture": _picture, "document": _document, "clip": _clip}
