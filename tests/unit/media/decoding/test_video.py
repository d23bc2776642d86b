"""Every kind of clip gives the frames that were asked for, upright; nothing outside its bytes is ever read."""

import contextlib
import gc
import io
import os
import random
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import av
import numpy as np
import pytest
from PIL import Image

from server.core import FrameChoice, PixelBudget
from server.errors import ApiError, BadRequest, InvalidVideo
from server.media import formats
from server.media.decoding import video
from server.media.decoding.video import DecodedClip, decode_clip
from server.media.frames import ClipLimits

LIMITS = ClipLimits()
ALL, FULL_SIZE = FrameChoice(), PixelBudget(resized_height=84, resized_width=112)
SIZE = (112, 84)


@pytest.fixture(scope="module", autouse=True)
def quiet_encoders() -> Iterator[None]:
    with mock.patch.dict(os.environ, SVT_LOG="0"):
        yield


def painted(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame in a colour that tells its number, 0 to 63, however it is encoded."""
    colour = [number % 4 * 85, number // 4 % 4 * 85, number // 16 % 4 * 85]
    return np.full((size[1], size[0], 3), colour, np.uint8)


def number_of(frame: np.ndarray) -> int:
    red, green, blue = (round(level / 85) for level in frame[20:60, 20:60].mean((0, 1)))
    return red + 4 * green + 16 * blue


def numbers(clip: DecodedClip) -> list[int]:
    return [number_of(frame) for frame in clip.frames]


def film(
    container: str = "mp4",
    codec: str = "libx264",
    *,
    count: int = 20,
    rate: Fraction | int = 10,
    size: tuple[int, int] = SIZE,
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    paint: Callable[[int], np.ndarray] | None = None,
    stamps: Callable[[int], int] | None = None,
    turned: tuple[int, bool, bool] | None = None,
    b_frames: int | None = None,
    pixel: Fraction | None = None,
    sound: bool = False,
) -> bytes:
    """A clip file of `count` frames, made here and now."""
    target = io.BytesIO()
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if pixel is not None:
            stream.codec_context.sample_aspect_ratio = pixel
            stream.sample_aspect_ratio = pixel
        if turned is not None:
            stream.set_display_rotation(turned[0], hflip=turned[1], vflip=turned[2])
        if sound:
            noise = output.add_stream("aac", rate=16_000)
        for number in range(count):
            rgb = paint(number) if paint else painted(number, size)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format=pixels)
            if stamps:
                frame.pts = stamps(number)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if sound:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 16_000
            output.mux(noise.encode(silence))
            output.mux(noise.encode())
    return target.getvalue()


def every_frame(data: bytes) -> list[np.ndarray]:
    """All frames in the order in which they are shown, decoded one after the other."""
    with av.open(io.BytesIO(data)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def refusal(data: bytes, choice: FrameChoice = ALL, limits: ClipLimits = LIMITS) -> InvalidVideo:
    with pytest.raises(InvalidVideo) as caught:
        decode_clip(data, choice, PixelBudget(), limits, param="here")
    assert caught.value.param == "here"
    assert len(caught.value.message) < 200
    return caught.value


# ---- Every kind of file -----------------------------------------------------------------------------

X265 = {"x265-params": "log-level=-1:keyint=8:open-gop=1"}
OPEN_GOP = {"x264-params": "open-gop=1:keyint=8:bframes=3:b-pyramid=normal"}
FILES: dict[str, Callable[[], bytes]] = {
    "h264.mp4": film,
    "h264-open-gop.mp4": lambda: film(options=OPEN_GOP, count=40),
    "h264-sound.mp4": lambda: film(sound=True),
    "h264-fragmented.mp4": lambda: fragmented(),
    "h264-intra-refresh.mp4": lambda: film(options={"x264-params": "intra-refresh=1:keyint=8"}, count=40),
    "h264.mkv": lambda: film("matroska"),
    "hevc.mp4": lambda: film(codec="libx265", options=X265, count=40),
    "av1.mp4": lambda: film(codec="libsvtav1", options={"preset": "12"}),
    "mpeg4.mov": lambda: film("mov", "mpeg4"),
    "mpeg4-b.mp4": lambda: film(codec="mpeg4", b_frames=2, count=40),
    "prores.mov": lambda: film("mov", "prores_ks", pixels="yuv422p10le"),
    "vp8.webm": lambda: film("webm", "libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "8"}),
    "vp9.webm": lambda: film("webm", "libvpx-vp9", options={"auto-alt-ref": "1", "lag-in-frames": "8"}),
    "mpeg2.mkv": lambda: film("matroska", "mpeg2video", rate=25, b_frames=2),
    "mpeg4.avi": lambda: film("avi", "mpeg4"),
    "mpeg4-b.avi": lambda: film("avi", "mpeg4", b_frames=2),
    "mjpeg.avi": lambda: film("avi", "mjpeg", pixels="yuvj420p"),
    "h263.3gp": lambda: film("3gp", "h263", size=(176, 144)),
    "animation.gif": lambda: film("gif", "gif", pixels="rgb8"),
}


def fragmented() -> bytes:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4", container_options={"movflags": "frag_keyframe+empty_moov"}) as output:
        stream = output.add_stream("libx264", rate=10, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(20):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(painted(number), format="rgb24")))
        output.mux(stream.encode())
    return target.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: make() for name, make in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_the_frames_taken_are_those_asked_for(files: dict[str, bytes], name: str) -> None:
    data = files[name]
    clip = decode_clip(data, FrameChoice(nframes=6), FULL_SIZE, LIMITS)
    last = len(every_frame(data)) - 1
    assert clip.indices == tuple(np.round(np.linspace(0, last, 6)).astype(int))
    assert numbers(clip) == list(clip.indices)
    # Of H.263 the pixels are 12:11.
    assert clip.original_size == ((192, 144) if name == "h263.3gp" else SIZE)
    assert clip.frames.shape == (6, 84, 112, 3)


@pytest.mark.parametrize("name", FILES)
def test_skipping_what_is_not_needed_changes_no_bit(files: dict[str, bytes], name: str) -> None:
    frames = every_frame(files[name])
    height, width = frames[0].shape[:2]
    budget = PixelBudget(resized_height=height, resized_width=width)
    random.seed(name)
    for n in (2, 2, 4, 4, 8):
        start = random.uniform(0, 0.5)
        choice = FrameChoice(nframes=n, video_start=start, video_end=start + random.uniform(0.8, 1.4))
        clip = decode_clip(files[name], choice, budget, LIMITS)
        if clip.frames.shape[1:3] == (height, width):
            assert np.array_equal(clip.frames, [frames[index] for index in clip.indices])
        assert numbers(clip) == [number_of(frames[index]) for index in clip.indices]


def test_little_is_decoded_where_little_is_asked_for(files: dict[str, bytes]) -> None:
    data = film(count=60, options={"g": "5", "sc_threshold": "0"})
    with video._open(data, "mov", LIMITS) as container:
        track = video._read_track(container, len(data), LIMITS)
        wanted = {stamp for stamp, place in track.places.items() if place in (7, 40)}
        runs = video._runs(track.packets, wanted)
        assert len(runs) == 2
        assert 2 <= sum(map(len, runs)) <= 10
        assert video._runs(track.packets, set()) == [track.packets]


def test_the_first_and_the_last_frame_can_be_had(files: dict[str, bytes]) -> None:
    for name, data in files.items():
        clip = decode_clip(data, FrameChoice(nframes=2), FULL_SIZE, LIMITS)
        assert clip.indices[0] == 0, name
        assert clip.indices[1] == len(every_frame(data)) - 1, name
        assert numbers(clip) == list(clip.indices), name


def test_transparency_is_white() -> None:
    frames = [Image.new("RGBA", SIZE, (255, 0, 0, 0)) for _ in range(4)]
    for number, frame in enumerate(frames):
        frame.paste((0, 0, 255, 255), (8 * number, 0, 8 * number + 8, 8))
    target = io.BytesIO()
    frames[0].save(target, "GIF", save_all=True, append_images=frames[1:], duration=100, disposal=2)
    clip = decode_clip(target.getvalue(), FrameChoice(nframes=4), FULL_SIZE, LIMITS)
    assert (clip.frames[:, 40:, 40:] == 255).all()
    assert [int(frame[4, :, 0].argmin()) // 8 for frame in clip.frames] == [0, 1, 2, 3]


# ---- Time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, 10, 25, 30, 60, Fraction(30000, 1001), Fraction(24000, 1001)])
def test_a_steady_rate_is_found(rate: Fraction | int) -> None:
    clip = decode_clip(film(rate=rate), FrameChoice(nframes=20), FULL_SIZE, LIMITS)
    assert clip.fps == pytest.approx(float(rate), rel=1e-6)


def test_an_unsteady_rate_is_frames_over_time() -> None:
    stamps = [0, 1, 4, 5, 12, 13, 16, 17]  # tenths of a second
    data = film(count=8, stamps=lambda number: stamps[number], options={"bf": "0"})
    clip = decode_clip(data, FrameChoice(nframes=8), FULL_SIZE, LIMITS)
    assert numbers(clip) == list(range(8))
    assert clip.fps == pytest.approx(8 / 1.8)  # the last lasts as long as the one before it


def test_a_span_of_time_is_kept_to() -> None:
    clip = decode_clip(film(count=40), FrameChoice(fps=10, video_start=1.0, video_end=2.05), FULL_SIZE, LIMITS)
    assert numbers(clip) == list(clip.indices) == [*range(10, 15), *range(16, 21)]


def test_what_an_edit_list_cuts_out_is_not_counted() -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=10, options={"bf": "0", "g": "100"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(painted(number), format="rgb24")
            frame.pts, frame.time_base = number - 5, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    clip = decode_clip(target.getvalue(), FrameChoice(nframes=4), FULL_SIZE, LIMITS)
    assert clip.indices == (0, 5, 9, 14)
    assert numbers(clip) == [5, 10, 14, 19]


@pytest.mark.parametrize(
    ("stamps", "average_rate", "rate"),
    [
        ([(0, 0, 2), (4, 1, 2), (2, 2, 2)], None, 3 / 6 * 10),
        ([(None, 0, 1), (4, 1, 1), (2, 2, 1)], None, 3 / 3 * 10),
        ([(None, None, 1), (4, None, 1), (2, 2, 1)], None, 3 / 1 * 10),
        ([(5, 5, 0), (5, 5, None), (5, 5, -3)], Fraction(25), 25.0),
        ([(5, 5, 0), (5, 5, 0)], None, 2.0),
        ([(None, None, 7), (None, None, 7)], Fraction(25), 25.0),
        ([(-30, -30, 10), (-20, -20, 10)], None, 2 / 20 * 10),
    ],
)
def test_a_rate_is_found_whatever_the_stamps(
    stamps: list[tuple[int | None, int | None, int | None]], average_rate: Fraction | None, rate: float
) -> None:
    stream = mock.Mock(time_base=Fraction(1, 10), average_rate=average_rate)
    packets: Any = [mock.Mock(pts=pts, dts=dts, duration=duration) for pts, dts, duration in stamps]
    assert video._rate(stream, packets, LIMITS) == pytest.approx(rate)


# ---- As qwen-vl-utils -------------------------------------------------------------------------------


@pytest.fixture
def reference() -> Iterator[ModuleType]:
    """qwen-vl-utils, reading clips as its torchcodec reader does, with PyAV in torchcodec's place."""
    process = pytest.importorskip("qwen_vl_utils.vision_process")
    torch = pytest.importorskip("torch")

    def read(element: dict[str, Any]) -> tuple[object, dict[str, object], float]:
        with av.open(element["video"]) as container:
            rate = float(container.streams.video[0].average_rate or 0)
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        start, end, total = process.calculate_video_frame_range(element, len(frames), rate)
        n = process.smart_nframes(element, total, rate)
        indices = torch.linspace(start, end, n).round().long().tolist()
        taken = torch.from_numpy(np.stack([frames[index] for index in indices])).permute(0, 3, 1, 2)
        return taken, {"frames_indices": indices}, n / total * rate

    with (
        mock.patch.object(process, "get_video_reader_backend", return_value="torchcodec"),
        mock.patch.dict(process.VIDEO_READER_BACKENDS, torchcodec=read),
    ):
        yield process


@pytest.mark.parametrize("name", ["h264-open-gop.mp4", "vp9.webm", "animation.gif", "h264.mkv"])
@pytest.mark.parametrize(
    ("choice", "budget"),
    [
        ({}, {}),
        ({"fps": 5}, {"max_pixels": 120_000}),
        ({"nframes": 7}, {"min_pixels": 4 * 784, "max_pixels": 6000}),
        ({"fps": 4.0, "max_frames": 5, "video_start": 0.3}, {"resized_height": 50, "resized_width": 300}),
        ({"video_end": 1.25, "min_frames": 9, "total_pixels": 500_000}, {}),
    ],
)
def test_clips_come_out_as_from_qwen_vl_utils(
    reference: ModuleType,
    files: dict[str, bytes],
    tmp_path: Path,
    name: str,
    choice: dict[str, Any],
    budget: dict[str, int],
) -> None:
    file = tmp_path / name
    file.write_bytes(files[name])
    element = {"video": str(file), **choice, **budget}
    (expected, metadata), fps = reference.fetch_video(element, return_video_sample_fps=True, return_video_metadata=True)
    clip = decode_clip(files[name], FrameChoice(**choice), PixelBudget(**budget), LIMITS)
    assert list(clip.indices) == metadata["frames_indices"]
    assert clip.fps == pytest.approx(fps, rel=1e-9)
    assert clip.frames.shape == tuple(expected.permute(0, 2, 3, 1).shape)
    assert np.abs(expected.permute(0, 2, 3, 1).numpy() - clip.frames).max() <= 2


# ---- Upright ----------------------------------------------------------------------------------------

CORNERS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}


def four_corners(_: int) -> np.ndarray:
    picture = np.zeros((112, 168, 3), np.uint8)
    picture[:56, :84], picture[:56, 84:], picture[56:, :84], picture[56:, 84:] = CORNERS.values()
    return picture


PIXELS: list[tuple[Fraction, int, tuple[int, int]]] = [
    (Fraction(2), 0, (336, 112)),
    (Fraction(1, 2), 0, (168, 224)),
    (Fraction(2), 90, (112, 336)),
    (Fraction(64, 45), 0, (239, 112)),  # PAL, 16:9
    (Fraction(10, 11), 180, (168, 123)),  # NTSC, 4:3
    (Fraction(1), 0, (168, 112)),
    (Fraction(17), 0, (168, 112)),
    (Fraction(1, 1000), 0, (168, 112)),
]


@pytest.mark.parametrize(
    ("container", "codec", "pixel", "degrees", "shown"),
    [
        (container, codec, *case)
        for container, codec in (("mp4", "libx264"), ("mov", "mpeg4"), ("matroska", "libx264"))
        for case in PIXELS
        if container != "matroska" or case[1] == 0  # FFmpeg's writer of Matroska turns nothing
    ],
    ids=str,
)
def test_pixels_that_are_not_square_are_made_so(
    container: str, codec: str, pixel: Fraction, degrees: int, shown: tuple[int, int]
) -> None:
    data = film(
        container, codec, size=(168, 112), paint=four_corners, count=4, turned=(degrees, False, False), pixel=pixel
    )
    width, height = shown
    clip = decode_clip(data, ALL, PixelBudget(resized_height=112, resized_width=168), LIMITS)
    assert clip.original_size == shown
    free = decode_clip(data, ALL, PixelBudget(max_pixels=200 * 784), LIMITS)
    assert abs(free.frames.shape[2] / free.frames.shape[1] / (width / height) - 1) < 0.2
    expected = np.rot90(four_corners(0), degrees // 90)
    for y, x in ((20, 20), (20, -20), (-20, 20), (-20, -20)):
        assert np.abs(clip.frames[:, y, x].astype(int) - expected[y, x]).max() < 30


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize(("across", "down"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("mov", "mpeg4")])
def test_a_clip_is_turned_and_mirrored_as_it_asks(
    container: str, codec: str, degrees: int, across: bool, down: bool
) -> None:
    data = film(container, codec, size=(168, 112), paint=four_corners, count=4, turned=(degrees, across, down))
    expected = np.rot90(four_corners(0), degrees // 90)
    expected = expected[:: -1 if down else 1, :: -1 if across else 1]
    height, width = expected.shape[:2]
    clip = decode_clip(data, ALL, PixelBudget(resized_height=height, resized_width=width), LIMITS)
    assert clip.original_size == (width, height)
    for y, x in ((20, 20), (20, -20), (-20, 20), (-20, -20)):
        assert np.abs(clip.frames[:, y, x].astype(int) - expected[y, x]).max() < 30


def test_a_frame_with_unknown_side_data_is_turned_all_the_same() -> None:
    class Strange:
        """A frame with side data that PyAV has no name for."""

        rotation = 90

        @property
        def side_data(self) -> object:
            raise ValueError("38 is not a valid Type")

    with mock.patch.object(video, "VideoReformatter") as reformatter:
        reformatter.return_value.reformat.return_value = Strange()
        turn = video._turn_of(Strange())  # type: ignore[arg-type]
    picture = four_corners(0)
    frame = mock.Mock(**{"to_ndarray.return_value": picture})
    assert np.array_equal(video._turned(frame, turn), np.rot90(picture))


def test_frames_that_change_their_size_become_as_large_as_the_first() -> None:
    clip = decode_clip(spliced(SIZE, (224, 168)), FrameChoice(nframes=16), FULL_SIZE, LIMITS)
    assert numbers(clip) == [*range(8), *range(8)]
    assert clip.original_size == SIZE


def spliced(one: tuple[int, int], other: tuple[int, int]) -> bytes:
    """A clip of eight frames in one size, and of eight more in another."""
    target = io.BytesIO()
    parts = [film("matroska", "mjpeg", pixels="yuvj420p", count=8, size=size) for size in (one, other)]
    with (
        av.open(io.BytesIO(parts[0])) as first,
        av.open(io.BytesIO(parts[1])) as second,
        av.open(target, "w", format="matroska") as output,
    ):
        stream = output.add_stream_from_template(first.streams.video[0])
        for number, packet in enumerate(p for source in (first, second) for p in source.demux(video=0) if p.size):
            packet.stream, packet.pts, packet.dts = stream, number * 100, number * 100
            output.mux(packet)
    return target.getvalue()


# ---- What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_video"),
        (b"hello", "invalid_video_format"),
        (b"\0" * 1000, "invalid_video_format"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n", "unsupported_video_media_type"),
        (b"\n#EXTM3U", "unsupported_video_media_type"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "unsupported_video_media_type"),
        (b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011">', "unsupported_video_media_type"),
        (b"<!doctype html><title>404</title>", "unsupported_video_media_type"),
        (b"%PDF-1.7", "unsupported_video_media_type"),
        (b"\x89PNG\r\n\x1a\n", "unsupported_video_media_type"),
        (b"\xff\xd8\xff\xe0", "unsupported_video_media_type"),
        (b"RIFF\0\0\0\0WEBP", "unsupported_video_media_type"),
        (b"RIFF\0\0\0\0WAVE", "unsupported_video_media_type"),
        (b"\0\0\0\x20ftypheic", "unsupported_video_media_type"),
        (b"\0\0\0\x20ftypavif", "unsupported_video_media_type"),
        (b"FLV\x01\x05", "unsupported_video_media_type"),
        (b"OggS\0\x02", "unsupported_video_media_type"),
        (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9", "unsupported_video_media_type"),
        (b"ID3\x04", "unsupported_video_media_type"),
        (b"[Script Info]\nTitle: x\n", "invalid_video_format"),
    ],
)
def test_other_files_are_refused_by_name(data: bytes, code: str) -> None:
    assert refusal(data).code == code


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x20ftypisom",
        b"\0\0\0\x20ftypisom" + b"\0" * 4000,
        b"\0\0\0\x08wide\0\0\0\x08mdat",
        b"\x1aE\xdf\xa3",
        b"\x1aE\xdf\xa3" + b"\xff" * 4000,
        b"GIF89a",
        b"GIF89a\0\0\0\0\0\0\0;",
        b"RIFF\xff\xff\xff\xffAVI LIST",
        (b"G" + bytes(187)) * 9,
        b"\0\0\x01\xba\x44",
        b"\0\0\0\x20ftypavis",
    ],
)
def test_a_file_that_only_begins_like_a_clip_is_damaged(data: bytes) -> None:
    assert formats.recognised(data)
    assert refusal(data).code in ("video_parse_error", "invalid_video_format")


SHORT: dict[str, Callable[[], bytes]] = {
    "h264.mp4": lambda: film(count=4),
    "h264-first.mp4": lambda: with_index_first(film(count=4)),
    "mpeg4.mov": lambda: film("mov", "mpeg4", count=4),
    "h263.3gp": lambda: film("3gp", "h263", size=(176, 144), count=4),
}


def with_index_first(data: bytes) -> bytes:
    """An MP4 as it is written for the web; its samples are where the index does not look for them."""
    start = data.index(b"moov") - 4
    index = data[start : start + int.from_bytes(data[start : start + 4], "big")]
    head = data.index(b"ftyp") - 4 + int.from_bytes(data[:4], "big")
    return data[:head] + index + data[head:start]


@pytest.mark.parametrize("name", SHORT)
def test_a_clip_that_is_cut_anywhere_is_never_one_without_video(name: str) -> None:
    data = SHORT[name]()
    index = data.index(b"moov")
    for cut in {*range(12, len(data), 37), *range(index, min(index + 1200, len(data) - 1), 11)}:
        with contextlib.suppress(InvalidVideo):
            decode_clip(data[:cut], ALL, PixelBudget(), LIMITS)
            continue
        assert refusal(data[:cut]).code in ("video_parse_error", "invalid_video")


def test_a_file_without_video_is_refused() -> None:
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as output:
        noise = output.add_stream("aac", rate=16_000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16_000
        output.mux(noise.encode(silence))
        output.mux(noise.encode())
    assert refusal(target.getvalue()).code == "invalid_video_format"


def test_a_codec_that_is_not_listed_is_not_run() -> None:
    error = refusal(film("mov", "qtrle", pixels="rgb24"))
    assert error.code == "unsupported_video_media_type"
    assert "H.264" in error.message


def test_a_clip_of_one_frame_shows_it_twice() -> None:
    for data in (film(count=1), film("gif", "gif", pixels="rgb8", count=1)):
        clip = decode_clip(data, FrameChoice(), FULL_SIZE, LIMITS)
        assert (clip.indices, clip.seconds) == ((0, 0), (0.0, 0.0))
        assert clip.fps > 0
        assert numbers(clip) == [0, 0]


def test_the_choice_is_checked_first_and_against_the_clip() -> None:
    with pytest.raises(BadRequest, match=r"^fps must be more than 0") as caught:
        decode_clip(b"", FrameChoice(fps=0), PixelBudget(), LIMITS, param="here")
    assert caught.value.param == "here"
    with pytest.raises(BadRequest, match=r"^nframes is 30"):
        decode_clip(film(), FrameChoice(nframes=30), PixelBudget(), LIMITS)
    with pytest.raises(BadRequest, match=r"^video_start leaves"):
        decode_clip(film(), FrameChoice(video_start=9), PixelBudget(), LIMITS)


def test_a_narrow_clip_is_refused() -> None:
    assert refusal(film("gif", "gif", pixels="rgb8", size=(1206, 6), count=4)).code == "invalid_video"


@pytest.mark.parametrize("name", [name for name in FILES if name != "h263.3gp"])
def test_frames_over_the_limit_are_refused_by_size(files: dict[str, bytes], name: str) -> None:
    pixels = SIZE[0] * SIZE[1]
    assert decode_clip(files[name], ALL, FULL_SIZE, ClipLimits(max_source_pixels=pixels)).frames.any()
    error = refusal(files[name], limits=ClipLimits(max_source_pixels=pixels - 1))
    assert error.code == "video_too_large"
    assert "frames are 112x84 pixels, more than the 9407 allowed" in error.message


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("mov", "mpeg4"), ("webm", "libvpx-vp9")])
def test_frames_far_over_the_limit_are_never_decoded(container: str, codec: str) -> None:
    data = film(container, codec, size=(1280, 720), count=3)
    with mock.patch.object(video, "_take", side_effect=AssertionError):
        error = refusal(data, limits=ClipLimits(max_source_pixels=10_000))
    assert error.code in ("video_too_large", "video_parse_error")
    assert "10000" in error.message


def test_frames_that_grow_past_the_limit_are_refused() -> None:
    limits = ClipLimits(max_source_pixels=200 * 150)
    for sizes in ((SIZE, (224, 168)), ((224, 168), SIZE)):
        with pytest.raises(InvalidVideo, match="frames are 224x168 pixels, more than the 30000 allowed"):
            decode_clip(spliced(*sizes), FrameChoice(nframes=16), FULL_SIZE, limits)


def test_clips_too_long_or_of_too_many_frames_are_refused() -> None:
    data = film(count=21)
    assert decode_clip(data, ALL, FULL_SIZE, ClipLimits(max_seconds=2.2, max_source_frames=21))
    error = refusal(data, limits=ClipLimits(max_seconds=2.05))
    assert error.code == "video_too_large"
    error = refusal(data, limits=ClipLimits(max_source_frames=20))
    assert (error.code, error.message) == ("video_too_large", "The clip has more than the 20 frames allowed.")


def test_more_tokens_than_the_ceiling_are_refused_by_number() -> None:
    limits = ClipLimits(total_pixels=100 * 784, hard_total_pixels=100 * 784)
    assert refusal(film(), limits=limits).code == "video_too_large"


# ---- Damage -----------------------------------------------------------------------------------------


def wiped(data: bytes, lost: set[int]) -> bytes:
    """The clip with zeros in the place of some packets."""
    changed = bytearray(data)
    with av.open(io.BytesIO(data)) as container:
        for number, packet in enumerate(p for p in container.demux(video=0) if p.size):
            if number in lost:
                start = data.index(bytes(packet))
                changed[start : start + packet.size] = bytes(packet.size)
    return bytes(changed)


def test_a_lost_frame_is_replaced_by_the_one_before_it() -> None:
    data = wiped(film("mov", "mjpeg", pixels="yuvj420p", count=8), {0, 4, 5})
    clip = decode_clip(data, FrameChoice(nframes=8), FULL_SIZE, LIMITS)
    assert numbers(clip) == [1, 1, 2, 3, 3, 3, 6, 7]


def test_a_clip_of_which_most_is_lost_is_damaged() -> None:
    data = film("mov", "mjpeg", pixels="yuvj420p", count=8)
    assert refusal(wiped(data, {1, 2, 3, 5, 7})).code == "video_parse_error"
    assert refusal(wiped(data, set(range(8)))).code == "video_parse_error"
    assert decode_clip(wiped(data, {1, 2, 3, 5}), FrameChoice(nframes=8), FULL_SIZE, LIMITS)


def test_a_clip_that_is_cut_off_is_as_long_as_what_is_left() -> None:
    data = film("matroska", "mjpeg", pixels="yuvj420p", count=20)
    clip = decode_clip(data[: len(data) // 2], FrameChoice(nframes=2), FULL_SIZE, LIMITS)
    assert 5 < clip.indices[-1] < 12
    assert numbers(clip) == list(clip.indices)
    whole = film()  # its index is at the end
    assert refusal(whole[: len(whole) // 2]).code == "video_parse_error"


@pytest.mark.parametrize("seed", range(4))
def test_garbled_files_are_decoded_or_refused(files: dict[str, bytes], seed: int) -> None:
    rng = random.Random(seed)
    limits = ClipLimits(max_source_pixels=10**6)
    for _ in range(75):
        data = bytearray(files[rng.choice(list(files))])
        for _ in range(rng.choice((1, 3, 10))):
            data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        if rng.random() < 0.3:
            data = data[: rng.randrange(len(data))]
        if rng.random() < 0.3:
            start = rng.randrange(len(data) + 1)
            del data[start : start + rng.randrange(300)]
        try:
            clip = decode_clip(bytes(data), FrameChoice(nframes=rng.choice((None, 2))), FULL_SIZE, limits)
        except (ApiError, MemoryError):
            continue
        assert clip.frames.shape[1:] == (84, 112, 3)


# ---- Nothing outside the bytes ----------------------------------------------------------------------


def box(kind: bytes, *body: bytes) -> bytes:
    content = b"".join(body)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def alias_to(path: str) -> bytes:
    """A QuickTime data reference that says the samples are in another file, by its absolute path."""
    name = path.encode() + bytes(len(path) % 2)
    head = bytes(38) + bytes(12) + b"\4" + b"x.dat".ljust(63, b"\0") + bytes(16) + bytes(20)
    record = head + struct.pack(">HH", 2, len(name)) + name + struct.pack(">HH", 0xFFFF, 0)
    return box(b"alis", bytes(4), record.ljust(160, b"\0"))


def pointing_to(data: bytes, path: str) -> bytes:
    """The QuickTime file `data`, whose index stands last, with its samples in the file at `path`."""
    start = data.rindex(b"dref") - 4
    (size,) = struct.unpack_from(">I", data, start)
    reference = box(b"dref", words(0, 1), alias_to(path))
    changed = bytearray(data[:start] + reference + data[start + size :])
    for parent in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = data.rindex(parent, 0, start) - 4
        (size_before,) = struct.unpack_from(">I", data, place)
        struct.pack_into(">I", changed, place, size_before + len(changed) - len(data))
    return bytes(changed)


@pytest.fixture
def pointing(tmp_path: Path) -> bytes:
    data = film("mov", "mjpeg", pixels="yuvj420p")
    (tmp_path / "secret").write_bytes(data)
    return pointing_to(data, str(tmp_path / "secret"))


LURED = {"enable_drefs": "1", "use_absolute_path": "1"}


def test_samples_in_another_file_are_not_read(pointing: bytes) -> None:
    with av.open(io.BytesIO(pointing), options=LURED) as container:
        assert len(list(container.decode(video=0))) == 20, "the bait must work where FFmpeg is allowed to follow it"
    assert refusal(pointing).code == "video_parse_error"


@pytest.mark.parametrize("wall", ["protocol_whitelist", "io_open"])
def test_each_wall_holds_alone(pointing: bytes, wall: str) -> None:
    real = av.open

    def lured(*args: Any, options: dict[str, str], io_open: Any, **named: Any) -> Any:
        if wall == "protocol_whitelist":
            return real(*args, options=LURED | {"protocol_whitelist": options[wall]}, **named)
        return real(*args, options=LURED, io_open=io_open, **named)

    with mock.patch.object(av, "open", lured):
        assert refusal(pointing).code == "video_parse_error"


@pytest.fixture
def listener() -> Iterator[tuple[str, list[object]]]:
    """The address of a server on this machine, and who has called there."""
    callers: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:
                    return
                callers.append(caller)
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", callers
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def with_subtitles(avi: bytes, subtitles: bytes) -> bytes:
    """The AVI file with a text track whose only packet holds a file of its own, which FFmpeg opens."""
    name = "x".encode("utf-16-le") + b"\0\0"
    packet = (
        b"GAB2\0\2\0" + struct.pack("<I", len(name)) + name + b"\4\0" + struct.pack("<I", len(subtitles)) + subtitles
    )
    packet += bytes(len(packet) % 2)
    header = struct.pack("<4s4sIHHIIIIIIII8s", b"txts", bytes(4), 0, 0, 0, 0, 1, 10, 0, 1, len(packet), 0, 0, bytes(8))
    strl = b"strl" + b"strh" + struct.pack("<I", len(header)) + header + b"strf\0\0\0\0"
    track = b"LIST" + struct.pack("<I", len(strl)) + strl
    chunk = b"01tx" + struct.pack("<I", len(packet)) + packet
    hdrl = avi.index(b"LIST")
    (hdrl_size,) = struct.unpack_from("<I", avi, hdrl + 4)
    movi = avi.index(b"movi") - 8
    (movi_size,) = struct.unpack_from("<I", avi, movi + 4)
    changed = (
        avi[: hdrl + 4]
        + struct.pack("<I", hdrl_size + len(track))
        + avi[hdrl + 8 : hdrl + 8 + hdrl_size]
        + track
        + avi[hdrl + 8 + hdrl_size : movi + 4]
        + struct.pack("<I", movi_size + len(chunk))
        + b"movi"
        + chunk
        + avi[movi + 12 : movi + 8 + movi_size]
    )
    streams = changed.index(b"avih") + 8 + 24
    changed = changed[:streams] + struct.pack("<I", 2) + changed[streams + 4 :]
    return changed[:4] + struct.pack("<I", len(changed) - 8) + changed[8:]


def test_playlists_lead_nowhere(listener: tuple[str, list[object]]) -> None:
    address, callers = listener
    playlist = f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\nhttp://{address}/a.ts\n#EXT-X-ENDLIST\n".encode()
    concat = f"ffconcat version 1.0\nfile http://{address}/a.ts\n".encode()
    dash = (
        f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>http://{address}/</BaseURL></MPD>'
    ).encode()
    avi = film("avi", "mjpeg", pixels="yuvj420p")
    baits = [
        *(prefix + bait for prefix in (b"", b"\n", b"\0\0\0\x08free") for bait in (playlist, concat, dash)),
        b"\0\0\0\x14ftypisom\0\0\2\0mp41" + playlist,
        b"GIF89a" + playlist,
        b"\x1aE\xdf\xa3" + playlist,
        *(with_subtitles(avi, bait) for bait in (playlist, concat, dash)),
        pointing_to(film("mov", "mpeg4"), f"http://{address}/a"),
    ]
    for bait in baits:
        try:
            clip = decode_clip(bait, FrameChoice(nframes=4), FULL_SIZE, LIMITS)
        except InvalidVideo:
            continue
        assert numbers(clip) == list(clip.indices)
    assert callers == []


def test_the_subtitles_of_an_avi_file_do_no_harm() -> None:
    data = with_subtitles(film("avi", "mjpeg", pixels="yuvj420p"), b"1\n00:00:00,000 --> 00:00:01,000\nhello\n\n")
    with av.open(io.BytesIO(data)) as container:
        assert [stream.type for stream in container.streams] == ["video", "subtitle"], "the bait must work"
    assert numbers(decode_clip(data, FrameChoice(nframes=4), FULL_SIZE, LIMITS)) == [0, 6, 13, 19]


# ---- What it costs ----------------------------------------------------------------------------------


def jpeg(size: tuple[int, int]) -> bytes:
    target = io.BytesIO()
    Image.fromarray(painted(5, size)).save(target, "JPEG")
    return target.getvalue()


def movie(samples: int, *, sample_size: int, chunks: list[int], mdat: bytes) -> bytes:
    """A QuickTime file whose index claims `samples` JPEG pictures, spread over `chunks` at these places of the file."""
    identity = words(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    sizes = words(SIZE[0] << 16 | SIZE[1], 0x480000, 0x480000, 0)
    entry = box(b"jpeg", bytes(6), b"\0\1", bytes(16), sizes, b"\0\1", bytes(32), b"\0\x18\xff\xff")
    table = box(
        b"stbl",
        box(b"stsd", words(0, 1), entry),
        box(b"stts", words(0, 1, samples, 100)),
        box(b"stsc", words(0, 1, 1, samples // len(chunks), 1)),
        box(b"stsz", words(0, sample_size, samples)),
        box(b"stco", words(0, len(chunks), *chunks)),
    )
    here = box(b"dinf", box(b"dref", words(0, 1), box(b"url ", words(1))))
    media = box(
        b"mdia",
        box(b"mdhd", words(0, 0, 0, 1000, 0, 0)),
        box(b"hdlr", words(0, 0), b"vide", bytes(13)),
        box(b"minf", box(b"vmhd", bytes(12)), here, table),
    )
    track = box(b"trak", box(b"tkhd", words(1, 0, 0, 1, 0, 0), bytes(16), identity, words(0, 0)), media)
    head = box(b"mvhd", words(0, 0, 0, 1000, 0, 0x10000), bytes(12), identity, bytes(24), words(2))
    return box(b"ftyp", b"qt  ", words(0), b"qt  ") + box(b"mdat", mdat) + box(b"moov", head, track)


def test_samples_that_share_their_bytes_do_not_multiply() -> None:
    picture = jpeg(SIZE) + bytes(3000)
    fair = movie(2, sample_size=len(picture), chunks=[28, 28], mdat=picture)
    assert decode_clip(fair, ALL, FULL_SIZE, LIMITS).frames.shape[0] == 2
    bomb = movie(500, sample_size=len(picture), chunks=[28] * 500, mdat=picture)
    assert refusal(bomb).code == "video_parse_error"


def in_a_process(code: str) -> str:
    """What a Python process of its own prints, with little memory for data."""
    prelude = """
        import resource, sys, time
        import torch
        from server.core import FrameChoice, PixelBudget
        from server.errors import ApiError
        from server.media.frames import ClipLimits
        from server.media.decoding.video import decode_clip
        torch.set_num_threads(1)
        data = sys.stdin.buffer.read()
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        def limit(mib):
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (mib << 20),) * 2)
    """
    return textwrap.dedent(prelude) + textwrap.dedent(code)


def run(code: str, data: bytes) -> str:
    command = [sys.executable, "-c", in_a_process(code)]
    return subprocess.run(command, input=data, capture_output=True, check=True, timeout=120).stdout.decode()


def test_memory_never_holds_all_frames_at_full_size() -> None:
    data = film(count=60, size=(1280, 720), options={"preset": "ultrafast"})
    code = """
        decode_clip(data, FrameChoice(nframes=2), PixelBudget(resized_height=84, resized_width=112), ClipLimits())
        before = peak()
        decode_clip(data, FrameChoice(nframes=60), PixelBudget(resized_height=84, resized_width=112), ClipLimits())
        print(peak() - before)
    """
    assert int(run(code, data)) < 60  # MiB; all 60 frames would be 158


def test_an_index_that_claims_millions_of_frames_ends_at_the_limit_of_memory() -> None:
    bomb = movie(80_000_000, sample_size=1, chunks=[28], mdat=jpeg(SIZE))
    assert len(bomb) < 2000
    code = """
        limit(1024)
        start = time.process_time()
        try:
            decode_clip(data, FrameChoice(), PixelBudget(), ClipLimits())
        except (ApiError, MemoryError):
            print("refused", time.process_time() - start < 5)
    """
    assert run(code, bomb) == "refused True\n"


@pytest.mark.parametrize("step", ["resize", "VideoReformatter", "_read_track"])
def test_want_of_memory_is_not_taken_for_damage(files: dict[str, bytes], step: str) -> None:
    with mock.patch.object(video, step, side_effect=MemoryError), pytest.raises(MemoryError):
        decode_clip(files["h264.mp4"], ALL, FULL_SIZE, LIMITS)


def test_one_thread_decodes(files: dict[str, bytes]) -> None:
    counts: list[int] = []
    whole = video.resize

    def counting(rgb: np.ndarray, height: int, width: int) -> np.ndarray:
        counts.append(len(os.listdir("/proc/self/task")))
        return whole(rgb, height, width)

    whole(painted(0), 28, 28)
    with mock.patch.object(video, "resize", counting):
        for name in ("h264.mp4", "hevc.mp4", "vp9.webm", "av1.mp4", "prores.mov"):
            before = len(os.listdir("/proc/self/task"))
            decode_clip(files[name], FrameChoice(nframes=4), FULL_SIZE, LIMITS)
            assert set(counts) == {before}, name
            counts.clear()


def test_no_frame_waits_for_the_garbage_collector(files: dict[str, bytes]) -> None:
    gc.collect()
    gc.disable()
    try:
        decode_clip(files["h264.mp4"], FrameChoice(nframes=8), FULL_SIZE, LIMITS)
        left = [frame for frame in gc.get_objects() if type(frame) is av.VideoFrame]
        assert all(frame.width <= 16 for frame in left)
    finally:
        gc.enable()
