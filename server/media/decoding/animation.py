"""Animated PNG and WebP files as clips, and pictures as clips of a single frame: frames by Pillow, over white.

How long each frame is shown stands in the file and is read here, without decoding. Pillow makes a frame out of the one
before it, so all up to the last that is wanted are made, and those that are wanted are kept.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from server.core import FrameChoice, PixelBudget
from server.errors import BadRequest, as_kind, invalid_media
from server.media import formats
from server.media.decoding.decode import Pixels, animated_parts, on_white, open_picture
from server.media.decoding.resize import resize
from server.media.decoding.video import DecodedClip
from server.media.frames import ClipLimits, check_choice, frame_size, sampled_frames
from server.media.limits import DecodeLimits
from server.media.pixels import FRAMES

LEAST_DELAY_S, USUAL_DELAY_S = 0.011, 0.1
"""What asks for less than the first is shown for the second, as browsers do it, and FFmpeg with GIF files."""
_DAMAGED = "The animation is damaged or cut off."


@dataclass(frozen=True, slots=True)
class _Animation:
    """What a file says of its frames before any is decoded."""

    data: bytes
    """The file without what is no frame of it."""
    plugin: str
    width: int
    height: int
    seconds: tuple[float, ...]
    """How long each frame is shown."""
    hidden: int = 0
    """Frames of Pillow's count before the first that is shown: a PNG's picture for viewers that know no animations."""


def decode_animation(
    data: bytes,
    choice: FrameChoice,
    budget: PixelBudget,
    limits: ClipLimits,
    decode: DecodeLimits,
    *,
    param: str | None = None,
) -> DecodedClip:
    """The frames that `choice` takes of an animated PNG or WebP file, or of any picture, which has one.

    Raises as `decode_clip` and `open_picture`, with codes of clips.
    """
    check_choice(choice, budget, limits, param=param)
    try:
        animation = _read(data, param)
    except (struct.error, IndexError):
        raise _refusal(_DAMAGED, param) from None
    if animation is None or len(animation.seconds) < FRAMES:
        return _still(data, choice, budget, limits, decode, param)
    _check(animation, limits, param)
    total = len(animation.seconds)
    fps = total / sum(animation.seconds)
    indices, taken_fps = sampled_frames(total, fps, choice, limits, param=param)
    size = frame_size(animation.height, animation.width, len(indices), budget, choice, limits, param=param)
    frames = np.empty((len(indices), *size, 3), np.uint8)
    try:
        for place, pixels in enumerate(_frames(animation, indices)):
            frames[place] = resize(pixels, *size)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything on hostile bytes
        raise _refusal(_DAMAGED, param) from error
    original = animation.width, animation.height
    return DecodedClip(frames, taken_fps, original, tuple(indices), tuple(index / fps for index in indices))


def _still(
    data: bytes,
    choice: FrameChoice,
    budget: PixelBudget,
    limits: ClipLimits,
    decode: DecodeLimits,
    param: str | None,
) -> DecodedClip:
    try:
        picture = open_picture(data, decode, param=param)
        indices, fps = sampled_frames(1, limits.fps, choice, limits, param=param)
        size = frame_size(picture.height, picture.width, len(indices), budget, choice, limits, param=param)
        pixels = resize(picture.pixels(*size), *size)
    except BadRequest as error:
        raise as_kind(error, "video") from None
    frames = np.stack([pixels] * len(indices))
    return DecodedClip(frames, fps, (picture.width, picture.height), tuple(indices), (0.0,) * len(indices))


def _read(data: bytes, param: str | None) -> _Animation | None:
    """None for what is no animation."""
    found = formats.recognised(data)
    if found is None:
        raise formats.unknown(data, "video", param)
    if found.clip is not formats.Decoder.PILLOW:
        return None
    try:
        parts = animated_parts(data, found, param=param)
    except BadRequest as error:
        raise as_kind(error, "video") from None
    seconds = tuple(delay if delay >= LEAST_DELAY_S else USUAL_DELAY_S for delay in parts.seconds)
    return _Animation(parts.data, found.plugin, parts.width, parts.height, seconds, parts.hidden)


def _frames(animation: _Animation, indices: Sequence[int]) -> Iterator[Pixels]:
    """The frames with these numbers, which never go back, as uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(animation.data), formats=(animation.plugin,)) as image:
        if image.size != (animation.width, animation.height):
            raise ValueError("Pillow reads another size than we do")
        last, pixels = -1, np.empty(0, np.uint8)
        for index in indices:
            if index != last:
                image.seek(index + animation.hidden)
                pixels = np.asarray(on_white(image))
                last = index
            yield pixels


def _check(animation: _Animation, limits: ClipLimits, param: str | None) -> None:
    total, seconds, pixels = len(animation.seconds), sum(animation.seconds), animation.width * animation.height
    message = ""
    if not pixels:
        raise _refusal("The animation has no pixels.", param)
    if pixels > limits.max_source_pixels:
        size = f"{animation.width}x{animation.height}"
        message = f"The clip's frames are {size} pixels, more than the {limits.max_source_pixels} allowed."
    elif total > limits.max_source_frames:
        message = f"The clip has more than the {limits.max_source_frames} frames allowed."
    elif seconds > limits.max_seconds:
        message = f"The clip runs for {seconds:.0f} seconds, more than the {limits.max_seconds:.0f} allowed."
    if message:
        raise invalid_media("video", message, code="image_too_large", param=param)


def _refusal(message: str, param: str | None) -> BadRequest:
    return invalid_media("video", message, code="image_parse_error", param=param)
