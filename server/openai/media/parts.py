"""Content parts that hold media to sources: where each file is, how large it is looked at, which frames and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from server.core import ClipSource, DocumentSource, FrameChoice, PictureSource, PixelBudget, RawString, Url
from server.errors import BadRequest, UnsupportedParameter
from server.openai.media.content import (
    MAX_FRAMES,
    ClipControls,
    FilePart,
    ImagePart,
    ImageUrl,
    ImageUrlPart,
    PictureControls,
    PixelControls,
    VideoPart,
    VideoUrlPart,
)
from server.openai.media.controls import Controlled, controlled, frames_wanted
from server.openai.media.defaults import MediaDefaults, budget_over, choice_over
from server.openai.media.pages import page_ranges
from server.openai.parse import missing

LOW_DETAIL_PIXELS = 512 * 512
"""The most pixels of a picture with `"detail": "low"`, as OpenAI's guide has it."""
ORIGINAL_PIXELS = 1 << 40
"""More pixels than any picture has: with `"detail": "original"` only the operator's ceiling holds."""

PDF = "data:application/pdf;base64,"
JPEG_FRAMES = "data:video/jpeg;base64,"
"""vLLM's way to send frames one by one: JPEG files in base64 with commas between them."""
EARLY = 32
"""Where the colon of any URL stands, in characters."""
SEARCHED = 256
"""Bytes of a long string in which its media type stands."""
Find = Callable[[str], Url]
"""What a string of a parsed body stands for."""
FILE_ONLY = ("nframes", "num_frames", "min_frames", "max_frames", "video_start", "video_end")
"""Controls that choose among the frames of a clip file, while a list of frames is used as it is."""


def low_detail_pixels(min_pixels: int | None, max_pixels: int | None) -> int:
    """What `low` means on a server whose operator has set these defaults: never more than without it."""
    return max(min(LOW_DETAIL_PIXELS, max_pixels or LOW_DETAIL_PIXELS), min_pixels or 1)


class MediaParts:
    """Translates the media parts of one request, in reading order.

    A part's own controls win over its `detail`, and that over the request's `defaults`. `find` gives back the long
    strings that were kept apart of the body.
    """

    def __init__(self, defaults: MediaDefaults, low_pixels: int, find: Find) -> None:
        self._defaults = defaults
        self._find = find
        self._by_detail = {
            "low": budget_over(PixelBudget(max_pixels=low_pixels), defaults.budget),
            "original": budget_over(PixelBudget(max_pixels=ORIGINAL_PIXELS), defaults.budget),
        }
        self._clips = 0

    def picture(self, part: ImageUrlPart | ImagePart, here: str) -> PictureSource:
        """A picture; `here` is the part's place in the request."""
        field, place = _place_of(part, here)
        asked = controlled(part, place, here, field)
        if isinstance(place, str):
            return PictureSource(self._find(place), f"{here}.{field}", self._budget(asked.part))
        return PictureSource(self._find(place.url), f"{here}.{field}.url", self._budget(asked.part))

    def clip(self, part: VideoUrlPart | VideoPart, here: str) -> ClipSource:
        """A clip file, or a list of frames."""
        place = part.video_url if isinstance(part, VideoUrlPart) else part.video
        param = f"{here}.{part.type}"
        asked = controlled(part, place, here, part.type)
        budget = self._budget(asked.part)
        number, self._clips = self._clips, self._clips + 1
        if isinstance(place, list):
            urls = tuple(map(self._find, place))
            return ClipSource(urls, param, False, budget, self._frames_of_list(asked, number))
        if not isinstance(place, str):
            place, param = place.url, f"{param}.url"
        url = self._find(place)
        if start_of(url, len(JPEG_FRAMES)).lower() == JPEG_FRAMES:
            return ClipSource(_frames_inside(url, param), param, False, budget, self._frames_of_list(asked, number))
        return ClipSource((url,), param, True, budget, self._frames_of_file(asked, number))

    def document(self, part: FilePart, here: str) -> DocumentSource:
        """The wanted pages of a PDF."""
        param = f"{here}.file.file_data"
        if part.file.file_id is not None:
            raise UnsupportedParameter(
                f"'{here}.file.file_id' is not supported: this server keeps no files. Send the PDF in 'file_data'.",
                param=f"{here}.file.file_id",
            )
        if part.file.file_data is None:
            raise missing(param)
        asked = controlled(part, part.file, here, "file")
        data = self._find(part.file.file_data)
        # Base64 has no colon, and every URL has an early one.
        url = data if ":" in start_of(data, EARLY) else _with_prefix(PDF, data)
        pages = () if asked.part.pages is None else page_ranges(asked.part.pages, asked.path("pages"))
        return DocumentSource(url, param, pages, asked.part.dpi, self._budget(asked.part), part.file.password)

    def _budget(self, part: PixelControls) -> PixelBudget:
        own = PixelBudget(part.min_pixels, part.max_pixels, part.resized_height, part.resized_width)
        detail = part.detail if isinstance(part, PictureControls) else None
        return budget_over(own, self._by_detail.get(detail or "", self._defaults.budget))

    def _frames_of_file(self, asked: Controlled[ClipControls], number: int) -> FrameChoice:
        self._defaults.check_sampling(is_file=True)
        part, nframes = asked.part, frames_wanted(asked)
        if part.fps is not None and nframes is not None:
            path = asked.path("num_frames" if part.nframes is None else "nframes")
            raise BadRequest(f"'{asked.path('fps')}' and '{path}' exclude each other.", param=path)
        if part.sample_fps is not None:
            path = asked.path("sample_fps")
            raise BadRequest(f"Invalid '{path}': it counts for a list of frames; a clip file takes 'fps'.", param=path)
        own = FrameChoice(
            fps=part.fps,
            nframes=nframes,
            min_frames=part.min_frames,
            max_frames=part.max_frames,
            video_start=part.video_start,
            video_end=part.video_end,
            total_pixels=part.total_pixels,
        )
        return choice_over(own, self._defaults.choice(number))

    def _frames_of_list(self, asked: Controlled[ClipControls], number: int) -> FrameChoice:
        self._defaults.check_sampling(is_file=False)
        part = asked.part
        for name in FILE_ONLY:
            if getattr(part, name) is not None:
                path = asked.path(name)
                raise BadRequest(
                    f"Invalid '{path}': it counts for a clip file; a list of frames is used as it is.", param=path
                )
        # fps beside a list is what older releases of qwen-vl-utils read where newer ones read sample_fps.
        fps = part.sample_fps or part.fps or self._defaults.sample_fps(number)
        return FrameChoice(sample_fps=fps, total_pixels=part.total_pixels)


def _place_of(part: ImageUrlPart | ImagePart, here: str) -> tuple[str, str | ImageUrl]:
    """The field that names the picture, and what it holds."""
    if isinstance(part, ImagePart) and part.image is not None:
        if part.image_url is not None:
            path = f"{here}.image_url"
            raise BadRequest(f"'{here}.image' and '{path}' each name a picture, and a part holds one.", param=path)
        return "image", part.image
    if part.image_url is None:
        raise missing(f"{here}.image")
    return "image_url", part.image_url


def _frames_inside(url: Url, param: str) -> tuple[Url, ...]:
    frames: Sequence[Url]
    if isinstance(url, str):
        _, *frames = url.split(",", MAX_FRAMES + 1)
    else:
        whole = b"".join(url.after(url.head(SEARCHED).index(b",") + 1))
        frames = [RawString((frame,), len(frame), url.is_escaped) for frame in whole.split(b",", MAX_FRAMES)]
    if len(frames) > MAX_FRAMES:
        raise BadRequest(f"Invalid '{param}': a clip may have at most {MAX_FRAMES} frames.", param=param)
    return tuple(_with_prefix("data:image/jpeg;base64,", frame) for frame in frames)


def start_of(url: Url, size: int) -> str:
    """The first characters of a URL."""
    if isinstance(url, str):
        return url[:size]
    return url.start(SEARCHED)[:size]


def _with_prefix(prefix: str, url: Url) -> Url:
    if isinstance(url, str):
        return prefix + url
    return RawString((prefix.encode(), *url.pieces), len(prefix) + url.size, url.is_escaped)
