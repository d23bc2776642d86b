"""Content parts on the wire: text, pictures, clips and documents, in the spellings of OpenAI and of qwen-vl-utils."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from server.openai.wire import (
    TAG,
    EmptyIsNothing,
    Frames,
    FramesASecond,
    Integral,
    Lenient,
    Pixels,
    Seconds,
    Wire,
    form_of,
)

MAX_PARTS = 2048
"""Of a message. Each costs validation on the event loop; no context holds more of any use."""
MAX_FRAMES = 2048
"""Of a clip that comes as a list of pictures."""
MAX_PAGES_LENGTH = 1000
"""Characters, or numbers, that say which pages of a document are wanted."""


# ---- How media are looked at


class PixelControls(Wire):
    """Size controls of a picture, of each frame or of each page, named and meant as in qwen-vl-utils."""

    min_pixels: Pixels | None = Field(None, description="Smaller ones are enlarged to this many pixels.")
    max_pixels: Pixels | None = Field(None, description="Larger ones are reduced to this many pixels.")
    resized_height: Pixels | None = Field(None, description="The height itself, only together with resized_width.")
    resized_width: Pixels | None = Field(None, description="The width itself, only together with resized_height.")


class PictureControls(PixelControls):
    """How large a picture is looked at: in numbers of pixels, or in OpenAI's words."""

    detail: Annotated[Literal["auto", "low", "high", "original"] | None, EmptyIsNothing] = Field(
        None,
        description="low: at most 512 x 512 pixels. original: as many as the operator allows. high, auto and nothing: "
        "the server's default. min_pixels and max_pixels win.",
    )


class ClipControls(PixelControls):
    """Which frames of a clip the model sees and how large, named and meant as in qwen-vl-utils."""

    fps: FramesASecond | None = Field(
        None,
        description="Frames a second to take from a clip file, 2 by default; not together with nframes. For a list of "
        "frames the same as sample_fps.",
    )
    nframes: Frames | None = Field(None, description="Frames to take from a clip file; not together with fps.")
    num_frames: Frames | None = Field(None, description="Another name for nframes, as vLLM has it.")
    min_frames: Frames | None = Field(None, description="The fewest frames to take at a given fps.")
    max_frames: Frames | None = Field(None, description="The most frames to take at a given fps.")
    video_start: Seconds | None = Field(None, description="Where in a clip file to begin, in seconds.")
    video_end: Seconds | None = Field(None, description="Where in a clip file to end, in seconds.")
    total_pixels: Pixels | None = Field(None, description="Pixels of all frames together, shared out evenly.")
    sample_fps: FramesASecond | None = Field(
        None, description="Of a list of frames: how many of them make a second; 2 by default."
    )
    raw_fps: FramesASecond | None = Field(
        None, description="Of a list of frames: the frames a second of what they were taken from. Has no effect."
    )


PageNumber = Annotated[int, Field(ge=1, le=9_999_999), Lenient]
Pages = Annotated[
    Annotated[str, Field(max_length=MAX_PAGES_LENGTH), Tag("part:text")]
    | Annotated[PageNumber, Tag("part:number")]
    | Annotated[list[PageNumber], Field(max_length=MAX_PAGES_LENGTH, fail_fast=True), Tag("part:list")],
    form_of("part:text", "part:number", "part:list"),
    Integral,
]


class PageControls(PixelControls):
    """Which pages of a document the model sees, and how finely they are drawn."""

    pages: Pages | None = Field(
        None,
        description='Which pages, counted from 1: numbers and ranges such as "1-3,7,9-" (9 to the last), one number, '
        "or a list of numbers; all by default.",
    )
    dpi: Annotated[float, Field(ge=1, le=10_000, allow_inf_nan=False), Lenient] | None = Field(
        None, description="Dots an inch at which pages are drawn, before they are resized."
    )


# ---- Where media are
#
# Each takes the controls of its part too: LMDeploy's clients write them there.


class ImageUrl(PictureControls):
    """Where a picture is, an http(s) URL, a data URL, or a file: URL inside a folder that the operator named."""

    url: str


class VideoUrl(ClipControls):
    """Where a clip file is, in the same forms."""

    url: str


PicturePlace = Annotated[
    Annotated[str, Tag("part:text")] | Annotated[ImageUrl, Tag("part:object")], form_of("part:text", "part:object")
]
ClipFilePlace = Annotated[
    Annotated[str, Tag("part:text")] | Annotated[VideoUrl, Tag("part:object")], form_of("part:text", "part:object")
]
FrameUrls = Annotated[list[str], Field(min_length=1, max_length=MAX_FRAMES, fail_fast=True)]
ClipPlace = Annotated[
    Annotated[str, Tag("part:text")] | Annotated[VideoUrl, Tag("part:object")] | Annotated[FrameUrls, Tag("part:list")],
    form_of("part:text", "part:object", "part:list"),
]


class FileContent(PageControls):
    """A PDF that comes with the request."""

    file_data: str | None = Field(
        None, description="A data URL of type application/pdf, plain base64, or a URL to fetch from."
    )
    filename: str | None = Field(None, description="Has no effect.")
    password: str | None = Field(None, max_length=1000, repr=False, description="What opens the PDF.")
    file_id: str | None = Field(None, description="Not supported: this server keeps no files.")


# ---- The parts


class TextPart(Wire):
    """A piece of text."""

    type: Literal["text"]
    text: str


class RefusalPart(Wire):
    """What an assistant said instead of an answer."""

    type: Literal["refusal"]
    refusal: str = Field(description="Its words.")


class ImageUrlPart(PictureControls):
    """A picture, as OpenAI's clients write it."""

    type: Literal["image_url"]
    image_url: PicturePlace = Field(description="Where the picture is.")


class ImagePart(PictureControls):
    """A picture, as qwen-vl-utils' users write it: `{"type": "image", "image": "data:image;base64,..."}`."""

    type: Literal["image"]
    image: PicturePlace | None = Field(None, description="Where the picture is.")
    image_url: PicturePlace | None = Field(None, description="Another name for `image`, read where that is absent.")


class VideoUrlPart(ClipControls):
    """A clip, as vLLM's clients write it; `data:video/jpeg;base64,...,...` holds its frames one by one."""

    type: Literal["video_url"]
    video_url: ClipFilePlace = Field(description="Where the clip file is.")


class VideoPart(ClipControls):
    """A clip, as qwen-vl-utils' users write it: one file, or a list of pictures that are its frames in order."""

    type: Literal["video"]
    video: ClipPlace = Field(description="Where the clip file is, or where its frames are.")


class FilePart(PageControls):
    """A PDF whose pages the model sees as pictures, in order."""

    type: Literal["file"]
    file: FileContent


class UnknownPart(Wire):
    """Any other kind of part; refused by the translation with a message that names the known kinds."""

    type: Any = None


PARTS = {name: TAG + name for name in ("text", "refusal", "image_url", "image", "video_url", "video", "file")}
"""Known content parts and their tags."""


def _tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return PARTS.get(kind, TAG + "unknown") if isinstance(kind, str) else TAG + "unknown"


ContentPart = Annotated[
    Annotated[TextPart, Tag("part:text")]
    | Annotated[RefusalPart, Tag("part:refusal")]
    | Annotated[ImageUrlPart, Tag("part:image_url")]
    | Annotated[ImagePart, Tag("part:image")]
    | Annotated[VideoUrlPart, Tag("part:video_url")]
    | Annotated[VideoPart, Tag("part:video")]
    | Annotated[FilePart, Tag("part:file")]
    | Annotated[UnknownPart, Tag("part:unknown")],
    Discriminator(_tag),
]


def _as_text(value: Any) -> Any:
    return {"type": "text", "text": value} if isinstance(value, str) else value


def _as_parts(value: Any) -> Any:
    """Plain strings, alone or in a list, are text parts: there is one form to translate, and one of error paths."""
    if isinstance(value, str):
        return [_as_text(value)]
    return [_as_text(part) for part in value] if isinstance(value, list) else value


ContentParts = Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True), BeforeValidator(_as_parts)]
