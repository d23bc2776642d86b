"""What vLLM's clients say of all media of a request at once: `mm_processor_kwargs` and `media_io_kwargs`.

A part's own controls and its `detail` win over these, and `mm_processor_kwargs` over `media_io_kwargs`. Fields that are
not listed here are refused, since each would change what the model sees.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from server.openai.media.content import MAX_PARTS
from server.openai.wire import Frames, FramesASecond, Lenient, Pixels, Wire, form_of


class Size(Wire):
    """A range of pixels, in the spelling of today's transformers."""

    shortest_edge: Pixels | None = Field(None, description="The same as min_pixels: not a length.")
    longest_edge: Pixels | None = Field(None, description="The same as max_pixels: not a length.")


FpsOfClips = Annotated[
    Annotated[FramesASecond, Tag("part:number")]
    | Annotated[list[FramesASecond], Field(max_length=MAX_PARTS, fail_fast=True), Tag("part:list")],
    form_of("part:number", "part:list"),
]


class MmProcessorKwargs(Wire):
    """Sizes and frames for the parts of this request that name none.

    Sizes hold for pictures, for pages and for each frame of a clip, as in vLLM.
    """

    min_pixels: Pixels | None = Field(None, description="Smaller ones are enlarged to this many pixels.")
    max_pixels: Pixels | None = Field(None, description="Larger ones are reduced to this many pixels.")
    size: Size | None = Field(None, description="The same two; min_pixels and max_pixels win.")
    fps: FpsOfClips | None = Field(
        None,
        description="Frames a second, for all clips or as a list with one for each: to take from a clip file, or that "
        "a list of frames has. Not together with num_frames.",
    )
    num_frames: Frames | None = Field(None, description="Frames to take from a clip file. Not together with fps.")
    min_frames: Frames | None = Field(None, description="The fewest frames to take at a given fps.")
    max_frames: Frames | None = Field(None, description="The most frames to take at a given fps.")
    do_sample_frames: bool | None = Field(
        None,
        description="Asks for nothing: frames of a clip file are always chosen (true), lists of frames are always used "
        "as they are (false).",
    )


class ImageIoKwargs(Wire):
    """How pictures are decoded."""

    image_mode: Literal["RGB"] | None = Field(None, description="What happens in any case.")


class VideoIoKwargs(Wire):
    """Which frames are taken from clip files that say nothing themselves."""

    num_frames: Annotated[int, Field(ge=-1, le=1 << 20), Lenient] | None = Field(
        None, description="At most this many frames, spread evenly; -1 for the default choice."
    )
    fps: Annotated[float, Field(ge=-1, le=1000, allow_inf_nan=False), Lenient] | None = Field(
        None, description="At most this many frames a second; -1 for the default choice."
    )


class MediaIoKwargs(Wire):
    """Defaults for how this request's media are decoded."""

    image: ImageIoKwargs | None = None
    video: VideoIoKwargs | None = None
