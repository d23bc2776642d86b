"""Files of every format and variant come out as the reference reads them: Pillow over white, upright; PyAV."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from server.core import FrameChoice, PixelBudget
from server.media.decoding.animation import decode_animation
from server.media.decoding.decode import Pixels, open_picture
from server.media.decoding.video import DecodedClip, decode_clip
from server.media.formats import Decoder, recognised
from server.media.frames import ClipLimits
from server.media.limits import DecodeLimits
from tests.media_files import CLIPS, DEEP, PICTURES, SIZE, scene

FULL_SIZE = PixelBudget(resized_width=168, resized_height=112)


def reference(data: bytes) -> Pixels:
    """By Pillow, or the binding of libheif, as the reference shows a picture: upright, on white."""
    found = recognised(data)
    assert found is not None
    if found.picture is Decoder.LIBHEIF:
        image = pillow_heif.open_heif(io.BytesIO(data)).to_pillow()
    else:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data), formats=(found.plugin,)))
    layered = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(layered, mask=layered.getchannel("A"))
    return np.asarray(white)


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_the_reference_sees(name: str) -> None:
    data = PICTURES[name]()
    picture = open_picture(data, DecodeLimits(), param="here")
    pixels, expected = picture.pixels(), reference(data)
    assert (picture.height, picture.width) == pixels.shape[:2] == expected.shape[:2]
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize("name", [name for name in PICTURES if "turned" in name])
def test_what_lies_on_its_side_is_set_upright(name: str) -> None:
    picture = open_picture(PICTURES[name](), DecodeLimits())
    assert (picture.width, picture.height) == SIZE[::-1]
    expected = np.asarray(scene().transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(picture.pixels() - expected).mean() < 6


def test_ten_bits_keep_the_upper_eight() -> None:
    pixels = open_picture(PICTURES["HEIC, 10 bits"](), DecodeLimits()).pixels().astype(int)
    assert np.abs(pixels - (DEEP >> 8).astype(int)).mean() < 4


def decoded(data: bytes, **choice: float) -> DecodedClip:
    found = recognised(data)
    assert found is not None
    wanted = FrameChoice(**choice)  # type: ignore[arg-type]
    if found.clip is Decoder.FFMPEG:
        return decode_clip(data, wanted, FULL_SIZE, ClipLimits(), param="here")
    return decode_animation(data, wanted, FULL_SIZE, ClipLimits(), DecodeLimits(), param="here")


@pytest.mark.parametrize("name", [name for name in CLIPS if "transparent" not in name])
def test_a_clip_shows_what_moves_in_it(name: str) -> None:
    """The red disc goes to the right, 8 pixels a frame."""
    clip = decoded(CLIPS[name]())
    assert clip.original_size == SIZE
    if "one frame" in name:
        assert clip.indices == (0, 0)
        assert np.array_equal(*clip.frames)
        return
    assert clip.indices[0] == 0
    centres = [centre_of_red(frame) for frame in clip.frames]
    for (before, one), (after, other) in pairwise(zip(clip.indices, centres, strict=True)):
        assert abs((other - one) - 8 * (after - before)) < 3


def centre_of_red(frame: Pixels) -> float:
    """In pixels of the original."""
    red, green, blue = (frame[..., band].astype(int) for band in range(3))
    columns = np.nonzero((red > 150) & (green < 110) & (blue < 110))[1]
    return float(columns.mean()) * SIZE[0] / frame.shape[1]


@pytest.mark.parametrize("name", ["PNG, animated", "WebP, animated", "WebP, animated and transparent"])
def test_the_frames_of_an_animation_are_pillows_over_white(name: str) -> None:
    data = CLIPS[name]()
    size = PixelBudget(resized_width=SIZE[0] // 28 * 28 + 28, resized_height=SIZE[1] // 28 * 28 + 28)
    clip = decode_animation(data, FrameChoice(nframes=6), size, ClipLimits(), DecodeLimits())
    assert (clip.indices, clip.fps) == ((0, 1, 2, 3, 4, 5), 2.0)
    assert clip.seconds == (0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
    image = Image.open(io.BytesIO(data))
    for frame, number in zip(clip.frames, clip.indices, strict=True):
        image.seek(number)
        layered = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(layered, mask=layered.getchannel("A"))
        expected = np.asarray(white.resize(frame.shape[1::-1], Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(frame - expected).max() <= 2
