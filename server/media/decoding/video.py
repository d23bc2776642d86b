"""Bytes of a clip file -> the frames that the model sees, with FFmpeg held to the bytes that it is given.

FFmpeg knows hundreds of formats, some of which are lists of other files and addresses. So it never guesses: the format
follows from the first bytes, its demuxer and a few video decoders are the only ones it may use, and whatever it asks to
open is refused. Counts and durations of a header are not believed: packets are counted as they come.

What "frame 17" is, and how many frames a second there are, follows torchcodec's exact mode, the first choice of
qwen-vl-utils: the frames are the packets of the best video track in the order of their time stamps, and their rate is
their number over the time from the first stamp to the end of the last frame. As there, frames are turned upright.
Pixels that are not square, as those of camcorders and DVDs, are made so, as players do and the reference does not.
"""

from __future__ import annotations

import io
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any, NoReturn

import av
import numpy as np
from av.container import Flags, InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from server.core import FrameChoice, PixelBudget
from server.errors import ApiError, ImageCode, invalid_media
from server.media import formats
from server.media.decoding.mpeg import has_too_many_tables
from server.media.decoding.resize import resize
from server.media.frames import ClipLimits, check_choice, frame_size, sampled_frames

Pixels = NDArray[np.uint8]

CODECS = (
    "h264",
    "hevc",
    "vp8",
    "vp9",
    "libdav1d",
    "mpeg4",
    "h263",
    "mpeg1video",
    "mpeg2video",
    "mjpeg",
    "prores",
    "gif",
)
"""The decoders that FFmpeg may use, by its own names; libdav1d is for AV1."""
GENERATE_STAMPS: int = Flags.gen_pts.value  # type: ignore[assignment]  # its published type is wrong
"""PyAV lets FFmpeg guess the time stamps that a file lacks, as AVI does; torchcodec goes without them."""
MARGINS = 1 << 18
"""Pixels."""
WIDEST_PIXEL = 16
"""Sides of a pixel that is not square; those of real clips are below 4, and beyond that it is taken for rubbish."""
TRANSPORT_STREAM = "mpegts"
MAX_TRACKS = 100
"""Tracks of a file, sound and subtitles included; FFmpeg's own default is 1000."""

_BOX = struct.Struct(">I4s")
"""Size and kind of a box of an MP4 or QuickTime file (ISO/IEC 14496-12, 4.2)."""
_WIDE_BOX = struct.Struct(">8xQ")
"""Its size where that does not fit: the first is then 1."""
MAX_BOXES = 10_000
"""Of a file, before its index; a fragmented one has two for each fragment, behind it."""
_DAMAGED = "The clip is damaged or cut off."

Turn = tuple[bool, int, int]
"""How to set a frame upright: whether rows and columns change places; then the steps through both, 1 or -1."""
UPRIGHT: Turn = (False, 1, 1)
_QUARTERS: tuple[Turn, ...] = (UPRIGHT, (True, -1, 1), (False, -1, -1), (True, 1, -1))
"""Turned to the left by so many right angles."""


@dataclass(frozen=True, slots=True, eq=False)
class DecodedClip:
    """The frames of a clip that the model sees, upright and resized."""

    frames: Pixels
    """uint8 [n, H, W, 3], n even."""
    fps: float
    """How many of these frames are a second of the clip."""
    original_size: tuple[int, int]
    """Width and height in pixels of an upright frame as a player shows it, before resizing."""
    indices: tuple[int, ...]
    """The number of each frame in the clip, counted from 0."""
    seconds: tuple[float, ...]
    """When each frame is shown, counted from the beginning of the clip."""


def decode_clip(
    data: bytes, choice: FrameChoice, budget: PixelBudget, limits: ClipLimits, *, param: str | None = None
) -> DecodedClip:
    """The frames of a clip file that FFmpeg reads (see `formats`) that `choice` takes, as large as `budget` asks.

    Memory holds the file twice, one decoder's frames at full size, and the resized frames; what FFmpeg takes for the
    index of a hostile file (24 bytes for each frame that it claims) is left to the limit of the process. Uses one
    thread, but for torch's.

    Damage is borne as players bear it: a packet that does not decode is passed over, and a frame lost that way is
    replaced by the one shown before it. Frames of another size than the first become the same size as that.

    Raises BadRequest as `check_choice`, `sampled_frames` and `frame_size`, and InvalidVideo with `param`: empty_video;
    unsupported_video_media_type (another format that we recognise, or a codec that is not in CODECS);
    invalid_video_format (nothing that we recognise, or no video in it); video_too_large (frames too large, too many or
    too long, by `limits`); video_parse_error (damaged, or more than half of the frames lost). Raises MemoryError when
    the machine has no memory for an allowed clip.
    """
    check_choice(choice, budget, limits, param=param)
    found = formats.recognised(data)
    if found is None:
        raise formats.unknown(data, "video", param)
    if found.clip is not formats.Decoder.FFMPEG:
        raise formats.misplaced(found, "video", param)
    try:
        with _open(data, found.demuxer, limits) as container:
            track = _read_track(container, len(data), limits)
            indices, fps = sampled_frames(track.total, track.fps, choice, limits, param=param)

            def size_of(height: int, width: int) -> tuple[int, int]:
                return frame_size(height, width, len(indices), budget, choice, limits, param=param)

            taken = _take(track, indices, size_of, limits, thrifty=True)
            if taken.lost and track.places:
                taken = _take(track, indices, size_of, limits, thrifty=False)
        if taken.frames is None or taken.lost > len(indices) / 2:
            raise _damaged()
    except (ApiError, MemoryError):
        raise
    except _Refusal as refusal:
        if refusal.code in _UNKNOWN and found.demuxer == "mov" and _index_is_cut_off(data):
            raise invalid_media("video", _DAMAGED, code="image_parse_error", param=param) from None
        raise invalid_media("video", refusal.message, code=refusal.code, param=param) from None
    except Exception as error:  # FFmpeg's errors are many, and hostile bytes reach parts of PyAV that raise others
        raise invalid_media("video", _DAMAGED, code="image_parse_error", param=param) from error
    return DecodedClip(
        taken.frames, fps, taken.original_size, tuple(indices), tuple(index / track.fps for index in indices)
    )


_UNKNOWN: tuple[ImageCode, ...] = ("invalid_image_format", "unsupported_image_media_type")
"""What a file is called whose tracks are not found, or are of no known codec."""


class _Refusal(Exception):
    """Why a clip is refused."""

    def __init__(self, message: str, code: ImageCode) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def _damaged() -> _Refusal:
    return _Refusal(_DAMAGED, "image_parse_error")


# ---- The file -----------------------------------------------------------------------------------------


def _index_is_cut_off(data: bytes) -> bool:
    """Whether an MP4 or QuickTime file ends inside of its `moov` box: then a track that is not found may be cut off."""
    at = 0
    for _ in range(MAX_BOXES):
        if at + _BOX.size > len(data):
            return False
        size, kind = _BOX.unpack_from(data, at)
        if size == 1 and at + _WIDE_BOX.size <= len(data):
            size = _WIDE_BOX.unpack_from(data, at)[0]
        if kind == b"moov":
            return bool(at + size > len(data))
        if size < _BOX.size:  # it goes to the end of the file, or is no box
            return False
        at += size
    return False


def _open(data: bytes, demuxer: str, limits: ClipLimits) -> InputContainer:
    """The file as FFmpeg sees it; its first frames are decoded to learn their size."""
    if demuxer == TRANSPORT_STREAM and has_too_many_tables(data):
        raise _damaged()
    options = {
        "format_whitelist": demuxer,  # for formats inside, such as the subtitles of an AVI file
        "protocol_whitelist": "none",
        "enable_drefs": "0",  # QuickTime's references to other files
        **_decoder_options(limits),
        "max_streams": str(MAX_TRACKS),
        "threads": "1",
    }
    return av.open(
        io.BytesIO(data), "r", format=demuxer, options=options, metadata_errors="replace", io_open=_refuse_to_open
    )


def _decoder_options(limits: ClipLimits) -> dict[str, str]:
    # Decoders count the margins that they give to a frame; the exact limit is checked where its size is known.
    return {"codec_whitelist": ",".join(CODECS), "max_pixels": str(2 * limits.max_source_pixels + MARGINS)}


def _refuse_to_open(*_: object) -> NoReturn:
    raise PermissionError("a clip may not name other files")


@dataclass(frozen=True, slots=True, eq=False)
class _Track:
    """The packets of a video track, in the order of decoding, and what they say of its frames."""

    stream: VideoStream
    packets: list[Packet[VideoStream]]
    total: int
    """How many frames are shown."""
    fps: float
    pixel: Fraction
    """How wide a pixel is, in its heights."""
    places: dict[int, int]
    """The number of the frame with a time stamp; empty where the stamps do not tell."""


def _read_track(container: InputContainer, file_size: int, limits: ClipLimits) -> _Track:
    stream = _video_stream(container, limits)
    packets = _read_packets(container, stream, file_size, limits)
    # Packets that an edit list cuts out are decoded, since others build on them, but never shown.
    shown = [packet for packet in packets if not packet.is_discard]
    if not shown:
        raise _Refusal("The clip has no frames.", "image_parse_error")
    stamps = {packet.pts for packet in shown if packet.pts is not None}
    places = {stamp: place for place, stamp in enumerate(sorted(stamps))} if len(stamps) == len(shown) else {}
    return _Track(stream, packets, len(shown), _rate(stream, shown, limits), _pixel(stream), places)


def _video_stream(container: InputContainer, limits: ClipLimits) -> VideoStream:
    stream = container.streams.best("video") or next(iter(container.streams.video), None)
    if not isinstance(stream, VideoStream) or stream.disposition & Disposition.attached_pic:
        raise _Refusal("The file has no video in it.", "invalid_image_format")
    context = stream.codec_context
    if context is None or context.codec.name not in CODECS:
        raise _Refusal(
            "The clip's video codec is not supported: use H.264, H.265, VP8, VP9, AV1 or MPEG-4.",
            "unsupported_image_media_type",
        )
    _check_frame(context.width, context.height, limits)
    context.thread_type = "NONE"
    context.thread_count = 1
    context.options = _decoder_options(limits)
    return stream


def _read_packets(
    container: InputContainer, stream: VideoStream, file_size: int, limits: ClipLimits
) -> list[Packet[VideoStream]]:
    container.flags &= ~GENERATE_STAMPS
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    packets: list[Packet[VideoStream]] = []
    size = 0
    for packet in container.demux(stream):
        if not packet.size:  # the end; also a frame that AVI leaves out
            continue
        packets.append(packet)
        size += packet.size
        if len(packets) > limits.max_source_frames:
            message = f"The clip has more than the {limits.max_source_frames} frames allowed."
            raise _Refusal(message, "image_too_large")
        if size > 2 * file_size:  # an index may name the same bytes again and again
            raise _damaged()
    return packets


def _rate(stream: VideoStream, shown: Sequence[Packet[VideoStream]], limits: ClipLimits) -> float:
    """Frames a second. Raises InvalidVideo (video_too_large) where the clip is too long."""
    unit = stream.time_base or Fraction(0)
    stamps = [packet.pts for packet in shown]
    if None in stamps:  # AVI has only those of decoding, which span the same time
        stamps = [packet.dts for packet in shown]
    begin = min((stamp for stamp in stamps if stamp is not None), default=0)
    ends = (
        stamp + max(0, packet.duration or 0) for stamp, packet in zip(stamps, shown, strict=True) if stamp is not None
    )
    end = max(ends, default=begin)
    seconds = float(end * unit) - float(begin * unit)  # subtracted as floats, as torchcodec does
    if seconds > limits.max_seconds:
        message = f"The clip runs for {seconds:.0f} seconds, more than the {limits.max_seconds:.0f} allowed."
        raise _Refusal(message, "image_too_large")
    if seconds > 0:
        return len(shown) / seconds
    return float(stream.average_rate or limits.fps)


def _pixel(stream: VideoStream) -> Fraction:
    """How wide a pixel is, in its heights, by the file or else its codec; 1 where neither says anything of sense."""
    pixel = stream.sample_aspect_ratio or Fraction(1)
    return pixel if Fraction(1, WIDEST_PIXEL) <= pixel <= WIDEST_PIXEL else Fraction(1)


# ---- Its frames ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Taken:
    frames: Pixels | None
    """None where nothing could be decoded."""
    original_size: tuple[int, int]
    lost: int
    """For how many frames another stands in."""


def _take(
    track: _Track,
    indices: Sequence[int],
    size_of: Callable[[int, int], tuple[int, int]],
    limits: ClipLimits,
    *,
    thrifty: bool,
) -> _Taken:
    """The frames of `indices`, upright, in the size that `size_of` gives to the height and width of the first."""
    converter = VideoReformatter()
    frames: Pixels | None = None
    turn: Turn | None = None
    size, original, lost = (0, 0), (0, 0), 0
    decoded = _decoded(track, indices, limits, thrifty=thrifty)
    for place, (frame, is_itself) in enumerate(_shown(decoded, indices)):
        turn = turn or _turn_of(frame)
        rgb = _turned(converter.reformat(frame, format="rgb24", threads=1), turn)
        if frames is None:
            height, width = _squared(rgb.shape[0], rgb.shape[1], 1 / track.pixel if turn[0] else track.pixel)
            size, original = size_of(height, width), (width, height)
            frames = np.empty((len(indices), *size, 3), np.uint8)
        frames[place] = resize(rgb, *size)
        lost += not is_itself
    return _Taken(frames, original, lost)


def _shown(decoded: Iterator[tuple[int, VideoFrame]], indices: Sequence[int]) -> Iterator[tuple[VideoFrame, bool]]:
    """For each of `indices` its frame, or where that is lost the one before it, or after it at the beginning of a clip.

    Also whether it is the frame itself. Yields nothing where nothing is decoded.
    """
    missing = deque(indices)
    previous = None
    for index, frame in decoded:
        while missing and missing[0] <= index:
            is_itself = missing.popleft() == index
            yield frame if is_itself or previous is None else previous, is_itself
        if not missing:
            return
        previous = frame
    if previous is not None:
        yield from ((previous, False) for _ in missing)


def _decoded(
    track: _Track, indices: Sequence[int], limits: ClipLimits, *, thrifty: bool
) -> Iterator[tuple[int, VideoFrame]]:
    """The frames of the clip and their numbers, as they are shown; `thrifty`: those of `indices` and few others."""
    context = track.stream.codec_context
    wanted = set(indices)
    stamps = {stamp for stamp, index in track.places.items() if index in wanted} if thrifty else set()
    may_skip = bool(stamps) and context.codec.name == "h264"  # elsewhere a frame said to be needless may be needed
    context.skip_frame = "DEFAULT"
    last, count = -1, 0
    for run in _runs(track.packets, stamps):
        context.flush_buffers()
        for packet in (*run, None):
            if may_skip:
                context.skip_frame = "DEFAULT" if packet is None or packet.pts in stamps else "NONREF"
            try:
                frames = context.decode(packet)
            except MemoryError:
                raise
            except av.FFmpegError:
                continue
            for frame in frames:
                _check_frame(frame.width, frame.height, limits)
                count += 1
                if count > 2 * len(track.packets):
                    raise _damaged()
                last = last + 1 if frame.pts is None else track.places.get(frame.pts, last + 1)
                yield last, frame


def _runs(packets: list[Packet[VideoStream]], stamps: set[int]) -> list[list[Packet[VideoStream]]]:
    """What to decode for the frames of these time stamps, in runs that each begin afresh at a keyframe.

    All packets where `stamps` is empty. A keyframe is where decoding may begin; the frames that follow it in the file
    but are shown before it may need those that stand before it, back to the keyframe before.
    """
    if not stamps:
        return [packets]
    starts = sorted({0, *(i for i, packet in enumerate(packets) if packet.is_keyframe)})
    groups: list[list[Packet[VideoStream]]] = [packets[start:end] for start, end in pairwise([*starts, len(packets)])]
    runs: list[list[Packet[VideoStream]]] = []
    whole = False
    for group, following in zip(groups, [*groups[1:], []], strict=True):
        length = max((length for length, packet in enumerate(group, 1) if packet.pts in stamps), default=0)
        if any(packet.pts in stamps and _is_earlier(packet, following[0]) for packet in following):
            length = len(group)
        if whole and length:
            runs[-1].extend(group[:length])
        elif length:
            runs.append(group[:length])
        whole = length == len(group)
    return runs


def _is_earlier(packet: Packet[VideoStream], other: Packet[VideoStream]) -> bool:
    """Whether it is shown earlier, as far as can be told."""
    return packet.pts is None or other.pts is None or packet.pts < other.pts


def _turn_of(frame: VideoFrame) -> Turn:
    """What the file asks for, in steps of a right angle."""
    # A frame whose side data is read stays until Python looks for cycles, so that a tiny one is made to pay for that.
    tiny = VideoReformatter().reformat(frame, 16, 16, format="rgb24", threads=1)
    try:
        side_data: Any = tiny.side_data  # its published type is wrong
        # FFmpeg's libavutil/display.h: (x, y) goes to (a*x + c*y, b*x + d*y), y downwards.
        a, b, _, c, d = np.frombuffer(side_data["DISPLAYMATRIX"], np.int32)[:5].tolist()
    except KeyError:
        return UPRIGHT
    except ValueError:  # PyAV does not know the name of another of the frame's side data
        return _QUARTERS[round(frame.rotation / 90) % 4]
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    if swapped:
        a, d = c, b
    return swapped, -1 if d < 0 else 1, -1 if a < 0 else 1


def _squared(height: int, width: int, pixel: Fraction) -> tuple[int, int]:
    """The size with square pixels: none is lost, the shorter side of a pixel grows, as browsers have it."""
    return (height, round(width * pixel)) if pixel >= 1 else (round(height / pixel), width)


def _turned(frame: VideoFrame, turn: Turn) -> Pixels:
    rgb = frame.to_ndarray().astype(np.uint8, copy=False)
    swapped, down, right = turn
    if swapped:
        rgb = rgb.transpose(1, 0, 2)
    return rgb[::down, ::right]


def _check_frame(width: int, height: int, limits: ClipLimits) -> None:
    most = limits.max_source_pixels
    if width * height > most:
        message = f"The clip's frames are {width}x{height} pixels, more than the {most} allowed."
        raise _Refusal(message, "image_too_large")
    if width * height == 0:  # FFmpeg itself stops a little above `most`, and may then not tell the size
        raise _Refusal(f"The clip is damaged, or its frames are larger than {most} pixels.", "image_parse_error")
