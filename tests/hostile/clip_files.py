"""Makes clip files: honest ones through FFmpeg, and AVI and MP4 files that say whatever they are told to say."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from PIL import Image

from tests.e2e.asking import encoded

SIZE: Final = (64, 48)


# ---- Through FFmpeg ---------------------------------------------------------------------------------


def encoded_clip(
    form: str = "mp4", codec: str = "mpeg4", frames: int = 12, size: tuple[int, int] = SIZE, rate: int = 4, **more: Any
) -> bytes:
    """A clip whose frames differ; `more` goes to the muxer."""
    pixel_format = {"gif": "rgb8", "ffv1": "yuv420p", "prores": "yuv422p10le", "mjpeg": "yuvj420p"}.get(
        codec, "yuv420p"
    )
    target = io.BytesIO()
    with av.open(target, "w", format=form, options={name: str(value) for name, value in more.items()}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        for number in range(frames):
            pixels = np.full((size[1], size[0], 3), (number * 20 % 256, 90, 200), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts = number
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def spoken() -> bytes:
    """An MP4 with sound alone."""
    target = io.BytesIO()
    with av.open(target, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return target.getvalue()


def mpeg4_frames(size: tuple[int, int]) -> tuple[bytes, bytes]:
    """A frame of one colour, and one that says that nothing has changed."""
    packets: list[bytes] = []
    with av.open(io.BytesIO(), "w", format="avi") as container:
        stream: Any = container.add_stream("mpeg4", rate=4)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(2):
            frame = av.VideoFrame(*size, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([128]) * plane.buffer_size)
            frame.pts = number
            packets += map(bytes, stream.encode(frame))
        packets += map(bytes, stream.encode(None))
    first, still = packets
    return first, still


def gif(frames: int, size: tuple[int, int] = SIZE) -> bytes:
    images = [Image.new("RGB", size, (number * 20 % 256, 90, 200)) for number in range(frames)]
    more: dict[str, Any] = {"save_all": True, "append_images": images[1:], "duration": 250} if frames > 1 else {}
    return encoded(images[0], "GIF", **more)


# ---- MP4 by its boxes -------------------------------------------------------------------------------


def box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


FTYP: Final = box(b"ftyp", b"isom\x00\x00\x02\x00isommp42")
CONTAINERS: Final = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"dinf", b"edts")


def rewritten(content: bytes, kind: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The file with the content of each box of a kind changed, and the sizes of those around it made right.

    Offsets into the file stay as they are, so boxes must keep their place: the index comes last in these files.
    """
    written = b""
    for name, inner in _boxes(content):
        if name == kind:
            inner = change(inner)
        elif name in CONTAINERS:
            inner = rewritten(inner, kind, change)
        written += box(name, inner)
    return written


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(content):
        size = struct.unpack(">I", content[at : at + 4])[0]
        yield content[at + 4 : at + 8], content[at + 8 : at + size]
        at += max(8, size)


def mp4_with(kind: bytes, change: Callable[[bytes], bytes], **options: Any) -> bytes:
    """An MP4 whose boxes of a kind say something else."""
    made = rewritten(encoded_clip(**options), kind, change)
    assert made != encoded_clip(**options), f"there is no {kind!r} to change"
    return made


def patched(at: int, value: bytes) -> Callable[[bytes], bytes]:
    """A change of the bytes at a place."""
    return lambda content: content[:at] + value + content[at + len(value) :]


def sized_entry(width: int, height: int) -> Callable[[bytes], bytes]:
    """Sample descriptions: a full box, a count, then an entry of 8 bytes of head, 24 of others, width and height."""
    return patched(8 + 8 + 24, struct.pack(">HH", width, height))


def elsewhere(kind: bytes, place: bytes) -> Callable[[bytes], bytes]:
    """A data reference that leads to another file; its flags no longer say that the data are in this one."""
    return lambda _: struct.pack(">II", 0, 1) + box(kind, struct.pack(">I", 0) + place)


def alias(path: str) -> bytes:
    """What QuickTime writes for a file on disk, as far as FFmpeg reads it."""
    name = path.rpartition("/")[2].encode()
    head = bytes(10) + bytes([4]) + b"disk".ljust(27, b"\0") + bytes(12)
    head += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16) + struct.pack(">hh", 1, 1) + bytes(16)
    whole = path.encode()
    return head + struct.pack(">HH", 18, len(whole)) + whole + b"\0" * (len(whole) % 2) + struct.pack(">hH", -1, 0)


def nested(kind: bytes, depth: int) -> bytes:
    """A box in a box in a box; sizes run from the outside in."""
    heads = b"".join(struct.pack(">I", 8 * (depth - level)) + kind for level in range(depth))
    return FTYP + heads


# ---- AVI by its chunks ------------------------------------------------------------------------------


def jpeg(size: tuple[int, int] = SIZE, colour: tuple[int, int, int] = (200, 30, 40)) -> bytes:
    return encoded(Image.new("RGB", size, colour), "JPEG", quality=50)


def riff(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def bunch(kind: bytes, *chunks: bytes) -> bytes:
    return riff(b"LIST", kind + b"".join(chunks))


def avi(
    frames: Sequence[bytes],
    size: tuple[int, int] = SIZE,
    *,
    rate: tuple[int, int] = (4, 1),
    count: int | None = None,
    codec: bytes = b"MJPG",
    subtitles: bytes = b"",
) -> bytes:
    """Motion JPEG, or what is called so. Size, rate and count are only said; `subtitles` is a track beside it."""
    count = len(frames) if count is None else count
    width, height = size
    main = struct.pack("<10I", 250_000, 0, 0, 0x10, count, 0, 1 + bool(subtitles), 0, width, height) + bytes(16)
    head = b"vids" + codec + struct.pack("<IHHIIIIIIII", 0, 0, 0, 0, rate[1], rate[0], 0, count, 0, 0, 0) + bytes(8)
    picture = struct.pack("<IiiHH", 40, width, height, 1, 24) + codec + bytes(20)
    tracks = [bunch(b"strl", riff(b"strh", head), riff(b"strf", picture))]
    data = [riff(b"00dc", frame) for frame in frames]
    if subtitles:
        words = b"txts" + bytes(4) + struct.pack("<IHHIIIIIIII", 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0) + bytes(8)
        tracks.append(bunch(b"strl", riff(b"strh", words), riff(b"strf", b"")))
        data.append(riff(b"01tx", subtitles))
    content = bunch(b"hdrl", riff(b"avih", main), *tracks) + bunch(b"movi", *data)
    return riff(b"RIFF", b"AVI " + content)


def subtitle_file(content: bytes) -> bytes:
    """A whole file inside a subtitle of AVI: what FFmpeg once opened as whatever it looked like."""
    name = "x".encode("utf-16-le") + b"\0\0"
    return b"GAB2\0" + struct.pack("<HI", 2, len(name)) + name + struct.pack("<HI", 4, len(content)) + content
