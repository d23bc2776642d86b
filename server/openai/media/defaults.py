"""Request-wide wishes for media (`mm_processor_kwargs`, `media_io_kwargs`), and how one wish gives way to another."""

from __future__ import annotations

from dataclasses import replace

from server.core import FrameChoice, PixelBudget
from server.errors import BadRequest, UnsupportedParameter
from server.openai.media.kwargs import MediaIoKwargs, MmProcessorKwargs, Size, VideoIoKwargs

MM = "mm_processor_kwargs"
EVERY_FRAME = 1000.0
"""Frames a second, more than any clip has: the arithmetic of qwen-vl-utils then takes all that max_frames allows."""
NO_BUDGET = PixelBudget()
NO_CHOICE = FrameChoice()


class MediaDefaults:
    """What a request wishes for all of its media; parts that say nothing themselves ask here."""

    def __init__(self, mm: MmProcessorKwargs | None, io: MediaIoKwargs | None) -> None:
        """Raises BadRequest for wishes that exclude each other."""
        self._mm = mm or MmProcessorKwargs()
        self._video = (io and io.video) or VideoIoKwargs()
        if self._mm.fps is not None and self._mm.num_frames is not None:
            raise BadRequest(f"'{MM}.fps' and '{MM}.num_frames' exclude each other.", param=f"{MM}.num_frames")
        self.budget = self._budget()
        """For pictures, for pages, and for each frame of a clip."""
        self._choice = self._choice_of_all()

    def _budget(self) -> PixelBudget:
        size = self._mm.size or Size()
        low = size.shortest_edge if self._mm.min_pixels is None else self._mm.min_pixels
        high = size.longest_edge if self._mm.max_pixels is None else self._mm.max_pixels
        if low is not None and high is not None and low > high:
            raise BadRequest(f"Invalid '{MM}': the fewest pixels, {low}, are more than the most, {high}.", param=MM)
        return PixelBudget(low, high)

    def _choice_of_all(self) -> FrameChoice:
        mm, video = self._mm, self._video
        fps = video.fps if video.fps and video.fps > 0 else None
        most = None
        if video.num_frames is not None and video.num_frames > 0:
            # vLLM takes at most so many, spread evenly; a pair of frames is the least that makes a patch.
            fps, most = fps or EVERY_FRAME, max(video.num_frames, 2)
        own = FrameChoice(
            fps=None if isinstance(mm.fps, list) else mm.fps,
            nframes=mm.num_frames,
            min_frames=mm.min_frames,
            max_frames=mm.max_frames,
        )
        return choice_over(own, FrameChoice(fps=fps, max_frames=most))

    def choice(self, clip: int) -> FrameChoice:
        """Which frames to take from a clip file, the request's `clip`th clip, counted from 0."""
        if isinstance(self._mm.fps, list):
            return choice_over(FrameChoice(fps=self._fps(clip)), self._choice)
        return self._choice

    def sample_fps(self, clip: int) -> float | None:
        """How many frames a second a list of frames has, the request's `clip`th clip."""
        fps = self._fps(clip) or self._video.fps
        return fps if fps and fps > 0 else None

    def check_sampling(self, *, is_file: bool) -> None:
        """Refuse to leave out what is always done, or to do what is never done: choosing frames.

        Raises:
            UnsupportedParameter: frames of a clip file are always chosen, frames of a list never.
        """
        if self._mm.do_sample_frames not in (None, is_file):
            what = "the frames of a clip file are always chosen" if is_file else "a list of frames is used as it is"
            name = f"{MM}.do_sample_frames"
            raise UnsupportedParameter(f"'{name}' is {str(not is_file).lower()}, but {what}.", param=name)

    def _fps(self, clip: int) -> float | None:
        fps = self._mm.fps
        if not isinstance(fps, list):
            return fps
        if clip >= len(fps):
            raise BadRequest(
                f"Invalid '{MM}.fps': the list has {len(fps)} numbers, and the request has more clips.",
                param=f"{MM}.fps",
            )
        return fps[clip]


def budget_over(own: PixelBudget, under: PixelBudget) -> PixelBudget:
    """`own`, completed by `under` where it says nothing. A wish of `under` that contradicts it is dropped."""
    if under == NO_BUDGET:
        return own
    low = under.min_pixels if own.min_pixels is None else own.min_pixels
    high = under.max_pixels if own.max_pixels is None else own.max_pixels
    if low is not None and high is not None and low > high:
        low, high = own.min_pixels, own.max_pixels
    return replace(own, min_pixels=low, max_pixels=high)


def choice_over(own: FrameChoice, under: FrameChoice) -> FrameChoice:
    """`own`, completed by `under` where it says nothing. A wish of `under` that contradicts it is dropped."""
    if own.nframes is not None or under == NO_CHOICE:
        return own
    by_fps = own.fps is not None
    fewest = under.min_frames if own.min_frames is None else own.min_frames
    most = under.max_frames if own.max_frames is None else own.max_frames
    if fewest is not None and most is not None and fewest > most:
        fewest, most = own.min_frames, own.max_frames
    return replace(
        own,
        fps=own.fps if by_fps else under.fps,
        nframes=None if by_fps else under.nframes,
        min_frames=fewest,
        max_frames=most,
    )
