"""What pictures, clips and documents may cost, all in one place."""

from __future__ import annotations

from dataclasses import dataclass, field

from server import machine
from server.errors import BadRequest, ContextLengthExceeded, MediaKind, too_long
from server.media.frames import ClipLimits
from server.media.pixels import FRAMES, PixelLimits

MIB = 1 << 20
CHANNELS = 3
PIXELS = 1
"""The side of a patch for models whose own processor cuts: they get the pixels as they are."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may hold. The defaults suit strangers on a machine of moderate size."""

    max_pictures: int = 16
    max_clips: int = 4
    max_pages: int = 16
    """Pages of all documents together."""
    max_bytes: dict[MediaKind, int] = field(
        default_factory=lambda: {"image": 20 * MIB, "video": 48 * MIB, "file": 32 * MIB}
    )
    """Bytes of one file of each kind, sent along or fetched."""
    max_request_bytes: int = 64 * MIB
    """Bytes of all files together."""
    max_tokens: int = 32_768
    """Prompt tokens of all of them together; more than the model's context is never of use."""
    takes_clips: bool = True
    """Whether clips can be shown to the model."""
    remote: bool = True
    """Whether anything is fetched from http(s) URLs at all."""

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that would let nothing through."""
        counts = (*self.max_bytes.values(), self.max_request_bytes, self.max_tokens)
        if min(self.max_pictures, self.max_clips, self.max_pages) < 0 or min(counts) < 1:
            raise ValueError("media limits must be positive")


def memory_or_share(mib: int | None, part: int) -> int:
    """Bytes: `mib` where the operator has set it, else one part in `part` of the memory that there is for us."""
    return machine.memory_bytes() // part if mib is None else mib * MIB


def patch_bytes(patch: int) -> int:
    """Of a patch: two frames of three channels; or a pixel as it is, where a model's own processor cuts."""
    return CHANNELS if patch == PIXELS else CHANNELS * FRAMES * patch**2


def patch_memory(tokens: int, pixels: PixelLimits) -> int:
    """Bytes of the patches behind so many tokens: a still picture's pixels stand there twice."""
    return tokens * pixels.token_pixels * CHANNELS * FRAMES


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """How large a picture may be before it is resized, and how closely it is decoded."""

    max_pixels: int = 100_000_000
    """Width times height, as the file's header says. Decoding takes 4 to 12 bytes of memory for each."""
    scaled_decoding: bool = True
    """Whether a JPEG may be decoded at a reduced scale where it is wanted much smaller than it is."""

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that would let nothing through."""
        if self.max_pixels < 1:
            raise ValueError("max_pixels must be at least 1")


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """How much of a document is drawn, and how large."""

    max_pages: int = 16
    """Pages drawn of one document."""
    default_dpi: float = 150.0
    """Dots an inch where the client asks for none: a page of A4 has 1240 x 1754 pixels, enough to read small print."""
    max_dpi: float = 300.0
    """Dots an inch that a client may ask for."""
    max_pixels: int = 25_000_000
    """Pixels of a drawn page: A3 at 300 dots an inch has 17 million. A larger page is drawn at fewer dots an inch."""
    refuse_missing_letters: bool = False
    """Whether a page is refused, not shown with a warning, where letters of it have no font."""

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that would let nothing through."""
        if self.max_pages < 1 or self.max_pixels < 1 or not (self.default_dpi > 0 and self.max_dpi >= 1):
            raise ValueError("limits of documents must be positive")


def check_dpi(dpi: float | None, limits: DocumentLimits, *, param: str | None = None) -> None:
    """Raises BadRequest for a resolution that no page is drawn at."""
    if dpi is not None and not 1 <= dpi <= limits.max_dpi:
        raise BadRequest(f"dpi must be from 1 to {limits.max_dpi:g} on this server.", param=param or "dpi")


@dataclass(frozen=True, slots=True)
class WorkLimits:
    """What a decode worker holds every job to."""

    pixels: PixelLimits = field(default_factory=PixelLimits)
    decode: DecodeLimits = field(default_factory=DecodeLimits)
    clips: ClipLimits = field(default_factory=ClipLimits)
    documents: DocumentLimits = field(default_factory=DocumentLimits)

    def tokens(self, pixels: int) -> int:
        """Prompt tokens of so many pixels of a still picture."""
        return pixels // self.pixels.token_pixels


def too_many_tokens(most: int) -> ContextLengthExceeded:
    """The pictures of a request alone are longer than the context."""
    return too_long(most, "your pictures alone need more", "Please send fewer, or give them a smaller max_pixels.")
