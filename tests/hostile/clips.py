"""Clips that are lists of other files, that lie about themselves or never end, and odd ones that are right."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from PIL import Image

from tests.e2e.asking import data_url, encoded
from tests.hostile import clip_files as make
from tests.hostile.bodies import RED
from tests.hostile.case import Case, answered, borne, refused, said, text
from tests.hostile.house import House
from tests.hostile.packing import MIB

CLIP: Final = "messages[0].content[0].video_url.url"
LIST: Final = "messages[0].content[0].video"
SMALL: Final = {"nframes": 2, "min_pixels": 28 * 28, "max_pixels": 56 * 56}
"""As few tokens as a clip can take."""

File = Callable[[], bytes]
FileOfHouse = Callable[[House], bytes]


def watched(url: str, **more: Any) -> dict[str, Any]:
    """A request about the clip at `url`."""
    return said([{"type": "video_url", "video_url": {"url": url}, **more}, text("What happens?")])


def listed(urls: list[Any], **more: Any) -> dict[str, Any]:
    """A request about a clip that comes as pictures."""
    return said([{"type": "video", "video": urls, **more}, text("What happens?")])


def inline(content: bytes, kind: str = "video/mp4", **more: Any) -> dict[str, Any]:
    return watched(data_url(content, kind), **more)


# ---- Lists of other files ---------------------------------------------------------------------------


def playlist(place: str) -> bytes:
    return f"#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:10.0,\n{place}\n#EXT-X-ENDLIST\n".encode()


def trap(house: House, path: str = "segment.ts") -> str:
    """An address where nobody may knock."""
    return f"http://127.0.0.1:{house.internet.traps.free_port}/{path}"


def manifest(house: House) -> bytes:
    return (
        f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
        f'<Representation id="1" mimeType="video/mp4"><BaseURL>{trap(house)}</BaseURL></Representation>'
        f"</AdaptationSet></Period></MPD>"
    ).encode()


def session(house: House) -> bytes:
    port = house.internet.traps.free_port
    return f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=video {port} RTP/AVP 96\r\n".encode()


def in_subtitles(house: House) -> bytes:
    """The attack on video sites of 2016: a playlist in the subtitles of an AVI file."""
    return make.avi([make.jpeg()] * 4, subtitles=make.subtitle_file(playlist(trap(house))))


def reference_movie(house: House) -> bytes:
    """QuickTime's way to say that the movie is elsewhere."""
    where = trap(house, "x.mov").encode() + b"\0"
    reference = make.box(b"rdrf", struct.pack(">I", 0) + b"url " + struct.pack(">I", len(where)) + where)
    return make.FTYP + make.box(b"moov", make.box(b"rmra", make.box(b"rmda", reference)))


ELSEWHERE: Final[dict[str, tuple[FileOfHouse, str]]] = {
    "a playlist of an address": (lambda house: playlist(trap(house)), "unsupported_video_media_type"),
    "a playlist of a file": (lambda _: playlist("file:///etc/passwd"), "unsupported_video_media_type"),
    "a playlist of a path": (lambda _: playlist("/etc/passwd"), "unsupported_video_media_type"),
    "a playlist of a pipe": (lambda _: playlist("pipe:0"), "unsupported_video_media_type"),
    "a playlist of a concatenation": (
        lambda house: playlist(f"concat:{trap(house)}|file:///etc/passwd"),
        "unsupported_video_media_type",
    ),
    "a playlist of bytes of a file": (
        lambda _: playlist("subfile,,start,0,end,64,,:///etc/passwd"),
        "unsupported_video_media_type",
    ),
    "a playlist behind spaces": (lambda house: b"  \n" + playlist(trap(house)), "unsupported_video_media_type"),
    "a playlist behind a byte order mark": (
        lambda house: b"\xef\xbb\xbf" + playlist(trap(house)),
        "invalid_video_format",
    ),
    "a concatenation": (lambda _: b"ffconcat version 1.0\nfile '/etc/passwd'\n", "unsupported_video_media_type"),
    "a concatenation without a head": (lambda _: b"file '/etc/passwd'\n", "invalid_video_format"),
    "a DASH manifest": (manifest, "unsupported_video_media_type"),
    "a session description": (session, "invalid_video_format"),
    "a list of a player": (lambda house: f"[playlist]\nFile1={trap(house)}\n".encode(), "invalid_video_format"),
    "an ASX list": (
        lambda house: f'<asx><entry><ref href="{trap(house)}"/></entry></asx>'.encode(),
        "invalid_video_format",
    ),
    "an address alone": (lambda house: trap(house).encode(), "invalid_video_format"),
    "a QuickTime text track of an address": (
        lambda house: b"RTSPtext" + trap(house).encode(),
        "invalid_video_format",
    ),
    "a movie that is elsewhere": (reference_movie, "invalid_video_format"),
}


# ---- Lies and damage --------------------------------------------------------------------------------


def cut(content: bytes, share: float) -> bytes:
    return content[: int(len(content) * share)]


def many_frames(count: int) -> bytes:
    """An AVI file of that many frames of 16x16 pixels, 60 a second."""
    return make.avi([make.jpeg((16, 16))] * count, (16, 16), rate=(60, 1))


def heavy() -> bytes:
    """700 frames of 4096x4096 pixels, most of which say no more than that nothing moves."""
    first, still = make.mpeg4_frames((4096, 4096))
    return make.avi([first] + [still] * 700, (4096, 4096), codec=b"FMP4")


def endless_entries(content: bytes) -> bytes:
    """A table of 4 billion entries in a few bytes."""
    return content[:4] + b"\xff\xff\xff\xff" + content[8:]


PARSE: Final = "video_parse_error"
LARGE: Final = "video_too_large"
OTHER: Final = "unsupported_video_media_type"
NONE: Final = "invalid_video_format"

REFUSED: Final[dict[str, tuple[File, str]]] = {
    "frames of 65,535 x 65,535 in GIF": (
        lambda: b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + bytes(6) + make.gif(4)[13:],
        PARSE,
    ),
    "no frames in AVI": (lambda: make.avi([]), PARSE),
    "no frames in MP4": (lambda: make.mp4_with(b"stsz", lambda _: struct.pack(">III", 0, 0, 0)), PARSE),
    "an MP4 of nothing but its type": (lambda: make.FTYP, PARSE),
    "an MP4 with an empty index": (lambda: make.FTYP + make.box(b"moov"), NONE),
    "four billion samples of a byte": (
        lambda: make.mp4_with(b"stsz", lambda _: struct.pack(">III", 0, 1, 0xFFFFFFFF)),
        PARSE,
    ),
    "four billion sizes in a table": (
        lambda: make.mp4_with(b"stsz", lambda _: struct.pack(">III", 0, 0, 0xFFFFFFFF)),
        PARSE,
    ),
    "samples outside the file": (lambda: make.mp4_with(b"stco", lambda c: c[:8] + b"\x7f\xff\xff\xff"), PARSE),
    "37,000 frames": (partial(many_frames, 37_000), LARGE),
    "an hour between two frames": (lambda: make.avi([make.jpeg()] * 4, rate=(1, 3600)), LARGE),
    "a year of two frames": (lambda: make.mp4_with(b"mdhd", make.patched(12, struct.pack(">I", 1)), frames=8), LARGE),
    "boxes 100,000 deep": (lambda: make.nested(b"moov", 100_000), PARSE),
    "tracks 100,000 deep": (lambda: make.FTYP + make.box(b"moov", make.nested(b"trak", 100_000)), NONE),
    "a thousand tracks": (
        lambda: make.FTYP + make.box(b"moov", make.box(b"trak", make.box(b"mdia", make.box(b"minf"))) * 1000),
        LARGE,
    ),
    "a box of 2**63 bytes, it says": (lambda: make.FTYP + struct.pack(">I4sQ", 1, b"moov", 2**63 - 1), PARSE),
    "half an MP4": (lambda: cut(make.encoded_clip(), 0.5), PARSE),
    "an AVI cut in its first frame": (lambda: make.avi([make.jpeg()] * 4)[:400], PARSE),
    "a WebM of nothing but its head": (lambda: make.encoded_clip("webm", "libvpx")[:200], PARSE),
    "a Matroska of noise": (lambda: b"\x1aE\xdf\xa3" + bytes(range(256)) * 40, PARSE),
    "an MP4 of noise": (lambda: make.FTYP + bytes(range(256)) * 40, PARSE),
    "frames of noise": (lambda: make.avi([bytes(range(256)) * 4] * 8), PARSE),
    "frames that are PNG": (lambda: make.avi([RED] * 8), PARSE),
    "frames that are bombs": (lambda: make.avi([big_jpeg()] * 8), PARSE),
    "frames 402 times as wide as high": (lambda: make.avi([make.jpeg((804, 2))] * 4, (804, 2)), "invalid_video"),
    "a codec of long ago": (lambda: make.avi([bytes(100)] * 4, codec=b"CVID"), OTHER),
    "a codec of no one": (lambda: make.avi([bytes(100)] * 4, codec=b"\0\0\0\x01"), OTHER),
    "FFV1": (lambda: make.encoded_clip("matroska", "ffv1"), OTHER),
    "HuffYUV": (lambda: make.encoded_clip("avi", "ffv1"), OTHER),
    "Ogg": (lambda: b"OggS" + bytes(100), OTHER),
    "Flash": (lambda: make.encoded_clip("flv", "libx264"), OTHER),
    "a sound file": (lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(100), OTHER),
    "an MP3": (lambda: b"ID3\x04" + bytes(100), OTHER),
    "sound in MP4": (make.spoken, NONE),
    "HTML": (lambda: b"<!doctype html><video src='http://127.0.0.1/'></video>", OTHER),
    "a PDF": (lambda: b"%PDF-1.7\n", OTHER),
    "words": (lambda: b"no clip at all", NONE),
    "a program": (lambda: b"\x7fELF\x02\x01\x01" + bytes(100), NONE),
}


def big_jpeg() -> bytes:
    """A JPEG whose header says 65,500 x 65,500."""
    whole = bytearray(make.jpeg())
    at = whole.index(b"\xff\xc0")
    whole[at + 5 : at + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(whole)


def damaged(content: bytes) -> bytes:
    """A byte in the middle that is another."""
    broken = bytearray(content)
    broken[len(broken) // 2] ^= 0xFF
    return bytes(broken)


ANSWERED: Final[dict[str, File]] = {
    "MPEG-4 in MP4": make.encoded_clip,
    "H.264 in MP4": lambda: make.encoded_clip(codec="libx264"),
    "H.265 in MP4": lambda: make.encoded_clip(codec="libx265"),
    "H.264 in Matroska": lambda: make.encoded_clip("matroska", "libx264"),
    "H.264 in QuickTime": lambda: make.encoded_clip("mov", "libx264"),
    "H.264 in pieces": lambda: make.encoded_clip(codec="libx264", movflags="frag_keyframe+empty_moov"),
    "VP8 in WebM": lambda: make.encoded_clip("webm", "libvpx"),
    "VP9 in WebM": lambda: make.encoded_clip("webm", "libvpx-vp9"),
    "AV1 in MP4": lambda: make.encoded_clip(codec="libsvtav1"),
    "Motion JPEG in AVI": lambda: make.avi([make.jpeg()] * 6),
    "ProRes in QuickTime": lambda: make.encoded_clip("mov", "prores"),
    "GIF": lambda: make.gif(6),
    "an odd number of frames": lambda: make.encoded_clip(frames=7),
    "frames of 65,535 x 65,535, its description says": lambda: make.mp4_with(b"stsd", make.sized_entry(65_535, 65_535)),
    "frames of 65,535 x 65,535, its head says": lambda: make.avi([make.jpeg()] * 4, (65_535, 65_535)),
    "frames of 2**31 - 1, its head says": lambda: make.avi([make.jpeg()] * 4, (2**31 - 1, 2**31 - 1)),
    "four billion chunks, it says": lambda: make.mp4_with(b"stco", endless_entries),
    "one frame": lambda: make.avi([make.jpeg()]),
    "one frame of GIF": lambda: make.gif(1),
    "two frames": lambda: make.encoded_clip(frames=2),
    "10,000 tiny frames": partial(many_frames, 10_000),
    "frames of several sizes": lambda: make.avi([make.jpeg((64, 48)), make.jpeg((96, 32)), make.jpeg((8, 8))] * 4),
    "four billion frames, it says": lambda: make.avi([make.jpeg()] * 8, count=0xFFFFFFFF),
    "no frames, it says": lambda: make.avi([make.jpeg()] * 8, count=0),
    "half an AVI": lambda: cut(make.avi([make.jpeg()] * 40), 0.5),
    "a damaged frame": lambda: damaged(make.avi([make.jpeg()] * 40)),
    "a bomb among its frames": lambda: make.avi([make.jpeg()] * 8 + [big_jpeg()] + [make.jpeg()] * 8),
    "a box of size 0 at its end": lambda: make.encoded_clip() + struct.pack(">I4s", 0, b"free"),
    "ten thousand empty boxes": lambda: make.encoded_clip() + make.box(b"free") * 10_000,
}
"""Clips of every format that people have, and odd ones that players play."""

FROM_OUTSIDE: Final[dict[str, FileOfHouse]] = {
    "a playlist in its subtitles": in_subtitles,
    "a track that is at an address": lambda house: make.mp4_with(
        b"dref", make.elsewhere(b"url ", trap(house).encode() + b"\0")
    ),
    "a track that is in a file": lambda _: make.mp4_with(b"dref", make.elsewhere(b"url ", b"file:///etc/passwd\0")),
    "a track that is in an alias": lambda _: make.mp4_with(b"dref", make.elsewhere(b"alis", make.alias("/etc/passwd"))),
}
"""Clips that name something outside beside what they hold: that is never opened, and what they hold is shown."""


# ---- Parameters -------------------------------------------------------------------------------------

GOOD: Final = data_url(make.avi([make.jpeg()] * 12), "video/mp4")
PART: Final = "messages[0].content[0]"

CONTROLS: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "fps 1e308": ({"fps": 1e308}, "invalid_value", f"{PART}.fps"),
    "fps infinite": ({"fps": float("inf")}, "invalid_value", f"{PART}.fps"),
    "fps 0": ({"fps": 0}, "invalid_value", f"{PART}.fps"),
    "fps -1": ({"fps": -1}, "invalid_value", f"{PART}.fps"),
    "fps text": ({"fps": "9" * 100_000}, "invalid_type", f"{PART}.fps"),
    "fps and nframes": ({"fps": 2, "nframes": 4}, "invalid_value", f"{PART}.nframes"),
    "nframes 2**63": ({"nframes": 1 << 63}, "invalid_value", f"{PART}.nframes"),
    "nframes 10,000": ({"nframes": 10_000}, "invalid_value", CLIP),
    "nframes 0": ({"nframes": 0}, "invalid_value", f"{PART}.nframes"),
    "more frames than there are": ({"nframes": 100}, "invalid_value", CLIP),
    "min_frames over max_frames": ({"min_frames": 9, "max_frames": 4}, "invalid_value", CLIP),
    "min_frames 2**40": ({"min_frames": 1 << 40}, "invalid_value", f"{PART}.min_frames"),
    "the end before the beginning": ({"video_start": 2, "video_end": 1}, "invalid_value", CLIP),
    "a beginning behind the end": ({"video_start": 1e5}, "invalid_value", CLIP),
    "a beginning at 1e300": ({"video_start": 1e300}, "invalid_value", f"{PART}.video_start"),
    "video_start not a number": ({"video_start": float("nan")}, "invalid_value", f"{PART}.video_start"),
    "total_pixels 0": ({"total_pixels": 0}, "invalid_value", f"{PART}.total_pixels"),
    "max_pixels 1": ({"max_pixels": 1}, "invalid_value", CLIP),
    "sample_fps of a file": ({"sample_fps": 2}, "invalid_value", f"{PART}.sample_fps"),
}
FRAME: Final = data_url(RED, "image/png")

LISTS: Final[dict[str, tuple[list[Any], dict[str, Any], str, str]]] = {
    "no frames": ([], {}, "invalid_value", LIST),
    "3,000 frames": ([FRAME] * 3000, {}, "invalid_value", LIST),
    "2,000 frames": ([FRAME] * 2000, {}, "invalid_value", LIST),
    "a frame that is a number": ([FRAME, 5], {}, "invalid_type", f"{LIST}[1]"),
    "a frame that is a file": ([FRAME, "file:///etc/passwd"], {}, "image_file_not_found", f"{LIST}[1]"),
    "a frame at a forbidden address": ([FRAME, "http://127.0.0.1/"], {}, "invalid_image_url", f"{LIST}[1]"),
    "a frame that is a clip": ([FRAME, GOOD], {}, "unsupported_image_media_type", f"{LIST}[1]"),
    "a frame that is damaged": (
        [FRAME, data_url(RED[:60], "image/png")],
        {},
        "image_parse_error",
        f"{LIST}[1]",
    ),
    "frames of several sizes": (
        [FRAME, data_url(encoded(Image.new("RGB", (300, 40)), "PNG"), "image/png")],
        {},
        "invalid_video",
        LIST,
    ),
    "nframes of a list": ([FRAME] * 4, {"nframes": 2}, "invalid_value", f"{PART}.nframes"),
}
URLS: Final[dict[str, tuple[str, str]]] = {
    "a forbidden address": ("http://127.0.0.1/clip.mp4", "invalid_video_url"),
    "a forbidden name": ("http://loopback.test/clip.mp4", "invalid_video_url"),
    "a file": ("file:///etc/passwd", "video_not_found"),
    "a path": ("/etc/passwd", "invalid_video_url"),
    "an FFmpeg protocol": ("concat:/etc/passwd|/etc/hosts", "invalid_video_url"),
    "another FFmpeg protocol": ("subfile,,start,0,end,64,,:/etc/passwd", "invalid_video_url"),
    "a device of FFmpeg": ("lavfi:testsrc", "invalid_video_url"),
    "a stream": ("rtmp://127.0.0.1/live", "invalid_video_url"),
    "a redirect to loopback": ("http://good.test/to?http%3A%2F%2F127.0.0.1%2F", "invalid_video_url"),
    "a host that serves HTML": ("http://good.test/html", "unsupported_video_media_type"),
    "a host that never ends": ("http://good.test/endless", "video_too_large"),
    "broken base64": ("data:video/mp4;base64,%%%%", "invalid_base64_video"),
    "empty base64": ("data:video/mp4;base64,", "empty_video"),
    "another media type": ("data:audio/mpeg;base64,AAAA", "invalid_video_format"),
}


def _too_large(_: House) -> dict[str, Any]:
    """45 MiB are the most that fit into a body; what is larger is refused as such."""
    return watched(f"data:video/mp4;base64,{base64.b64encode(make.FTYP + bytes(49 * MIB)).decode()}")


def _of_house(file: FileOfHouse) -> Callable[[House], dict[str, Any]]:
    return lambda house: inline(file(house), **SMALL)


def _of(file: File) -> Callable[[House], dict[str, Any]]:
    return lambda _: inline(file(), **SMALL)


CASES: Final[dict[str, Case]] = {
    **{name: refused(_of_house(file), code, CLIP) for name, (file, code) in ELSEWHERE.items()},
    **{name: refused(_of(file), code, CLIP) for name, (file, code) in REFUSED.items()},
    **{name: answered(_of(file)) for name, file in ANSWERED.items()},
    **{name: answered(_of_house(file)) for name, file in FROM_OUTSIDE.items()},
    **{name: refused(watched(GOOD, **more), code, param) for name, (more, code, param) in CONTROLS.items()},
    **{
        f"a list: {name}": refused(listed(urls, **more), code, param)
        for name, (urls, more, code, param) in LISTS.items()
    },
    **{f"from {name}": refused(watched(url), code, CLIP) for name, (url, code) in URLS.items()},
    "49 MiB": refused(_too_large, "request_too_large", status=413),
    "one pixel for all frames": answered(watched(GOOD, total_pixels=1, min_pixels=784)),
    "five clips": refused(
        said([{"type": "video_url", "video_url": {"url": GOOD}, **SMALL}] * 5),
        "invalid_value",
        "messages[0].content[4].video_url.url",
    ),
    "too long for the model": refused(
        listed([FRAME] * 64, resized_height=448, resized_width=448), "video_too_large", LIST
    ),
    "frames that take longer than decoding may": borne(
        lambda _: inline(heavy(), nframes=700, min_pixels=784, max_pixels=784), PARSE, CLIP
    ),
    "frames one by one that are none": refused(
        watched("data:video/jpeg;base64,AAAA,AAAA"), "invalid_image_format", f"{CLIP}[0]"
    ),
    "frames one by one, 3,000": refused(watched("data:video/jpeg;base64," + "AAAA," * 3000), "invalid_value", CLIP),
    "a list of one frame": answered(listed([FRAME], min_pixels=784, max_pixels=784)),
    "a list of the same frame": answered(listed([FRAME] * 9, min_pixels=784, max_pixels=784)),
}
