"""Which frames of a clip the model sees and how large they become: pure arithmetic, no files and no sockets.

The formulas are those of qwen-vl-utils 0.0.14 (`vision_process`: `smart_nframes`, `calculate_video_frame_range`,
`fetch_video`). Sizes are in pixels, height before width unless a name says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from server.core import FrameChoice, PixelBudget
from server.errors import BadRequest, invalid_media
from server.media.pixels import FACTOR, FRAMES, MAX_RATIO, PixelLimits, check_budget, smart_resize, target_size

_PICTURE_MIN = 4
"""Fewest blocks of a size that is asked for, and of a picture in a list of frames, before it counts as a frame."""


@dataclass(frozen=True, slots=True)
class ClipLimits:
    """What the model takes by default, the most that a client may ask for, and what a clip file may cost.

    The defaults of the first group are those of qwen-vl-utils: frames of 128 to 768 tokens of 28 x 28 pixels each.
    """

    frame_min_pixels: int = 128 * FACTOR**2
    """A smaller frame is enlarged to about this many pixels, unless the client asks otherwise."""
    frame_max_pixels: int = 768 * FACTOR**2
    """A larger frame is reduced to at most this many pixels, unless the client sets a higher minimum or a size."""
    total_pixels: int = int(128_000 * FACTOR**2 * 0.9)
    """What the frames share, two of them counting as one, since the vision tower merges them in pairs."""
    fps: float = 2.0
    """Frames taken from each second of a clip file; also how fast a list of frames is taken to run."""
    min_frames: int = 4
    max_frames: int = 768

    hard_max_frames: int = 768
    """The operator's ceiling: no clip has more frames, whatever a client asks."""
    hard_max_pixels: int = 16384 * FACTOR**2
    """The operator's ceiling of one resized frame."""
    hard_total_pixels: int = int(128_000 * FACTOR**2 * 0.9)
    """The operator's ceiling of `total_pixels`; a clip that would pass it all the same is refused."""

    max_seconds: float = 600.0
    """Length of a clip file, by its time stamps."""
    max_source_frames: int = 36_000
    """Frames in a clip file, seen or not: 10 minutes at 60 frames a second."""
    max_source_pixels: int = 4096 * 4096
    """Width times height of a frame before it is resized. A decoder may keep 16 such frames, of 1.5 to 6 bytes each."""

    factor: int = FACTOR
    """Every resized side is a multiple of this."""
    max_ratio: float = MAX_RATIO
    """A frame whose long side is more than this many times its short side is refused."""

    def __post_init__(self) -> None:
        """Raises ValueError for limits that contradict each other or would let nothing through."""
        if not 1 <= self.frame_min_pixels <= self.frame_max_pixels <= self.hard_max_pixels:
            raise ValueError("clip limits must satisfy 1 <= frame_min_pixels <= frame_max_pixels <= hard_max_pixels")
        if self.factor < 1 or self.frame_max_pixels < self.factor**2:
            raise ValueError(
                f"frame_max_pixels is {self.frame_max_pixels}, less than one block of {self.factor} pixels"
            )
        if not 1 <= self.total_pixels <= self.hard_total_pixels:
            raise ValueError("clip limits must satisfy 1 <= total_pixels <= hard_total_pixels")
        if not 1 <= self.min_frames <= self.max_frames <= self.hard_max_frames or self.max_frames < FRAMES:
            raise ValueError(
                "clip limits must satisfy 1 <= min_frames <= max_frames <= hard_max_frames, max_frames >= 2"
            )
        if not (math.isfinite(self.fps) and self.fps > 0 and self.max_seconds > 0):
            raise ValueError("fps and max_seconds must be more than 0")
        if self.max_source_frames < FRAMES or self.max_source_pixels < 1:
            raise ValueError("max_source_frames and max_source_pixels must let a clip through")


def check_choice(choice: FrameChoice, budget: PixelBudget, limits: ClipLimits, *, param: str | None = None) -> None:
    """Refuse a choice of frames, or a pixel budget of each, that no clip could satisfy, before any clip is fetched.

    `param` is where the clip stands in the request; without it the error carries the field's name.

    Raises BadRequest, whose message begins with the field's name: fps together with nframes, a value below the least
    that makes sense, a time that is not finite, an empty span of time, min_frames above max_frames, a number of frames
    above the operator's ceiling, or what `server.media.pixels.check_budget` refuses. Upper bounds above a ceiling pass:
    the ceiling honours them.
    """
    _check_frames(choice, limits, param)
    _check_budget(budget, limits, param)


def sampled_frames(
    total_frames: int, video_fps: float, choice: FrameChoice, limits: ClipLimits, *, param: str | None = None
) -> tuple[list[int], float]:
    """Which of the frames 0 .. total_frames - 1 of a clip file the model sees, and how many those are a second.

    As qwen-vl-utils: `video_start` and `video_end` narrow the clip; `nframes`, or `fps` within min_frames and
    max_frames, tells how many frames, an even number; these are spread evenly, the first and the last included. Where
    qwen-vl-utils would pass the operator's ceiling, fewer are taken.

    A clip of a single frame counts as one that shows it twice, and its span of time does not matter: as in a list of
    frames, where an odd number repeats the last.

    `video_fps` is positive. Raises BadRequest as `check_choice`, and where the clip has too few frames for `nframes` or
    within its span of time.
    """
    _check_frames(choice, limits, param)
    if total_frames < FRAMES:
        _count(FRAMES, video_fps, choice, limits, param)
        return [0] * FRAMES, video_fps
    start, end = _frame_range(total_frames, video_fps, choice, param)
    available = end - start + 1
    n = _count(available, video_fps, choice, limits, param)
    return _spread(start, end, n), n / available * video_fps


def frame_size(
    height: int,
    width: int,
    n: int,
    budget: PixelBudget,
    choice: FrameChoice,
    limits: ClipLimits,
    *,
    param: str | None = None,
) -> tuple[int, int]:
    """The (height, width) in pixels to which each of the `n` frames of `height` x `width` is resized.

    As `qwen_vl_utils.fetch_video`: at most 768 tokens a frame, fewer where the share of `total_pixels` is smaller, but
    never less than a little over the minimum; a client's max_pixels lowers that and does not raise it. resized_height
    and resized_width, when given, are rounded and brought into the limits of a picture, whatever the clip.

    Raises BadRequest as `check_choice` and for a total_pixels that leaves a frame less than one block; InvalidVideo
    for frames whose ratio is over 200 (invalid_video) and for frames that are together over the operator's ceiling
    (video_too_large).
    """
    _check_budget(budget, limits, param)
    ceiling, block = limits.hard_max_pixels, limits.factor**2
    low = limits.frame_min_pixels if budget.min_pixels is None else budget.min_pixels
    high = _most_pixels(low, n, budget, choice, limits)
    if budget.resized_height is not None and budget.resized_width is not None:
        height, width = budget.resized_height, budget.resized_width
        low, high = min(_PICTURE_MIN * block, ceiling), ceiling
    if high < block:
        reason = f"leaves each of the {n} frames less than one block of {limits.factor}x{limits.factor} pixels."
        raise BadRequest(f"total_pixels {reason}", param=param or "total_pixels")
    _check_ratio(height, width, limits, param)
    size = smart_resize(height, width, factor=limits.factor, min_pixels=low, max_pixels=high)
    if size[0] * size[1] > ceiling:
        size = smart_resize(height, width, factor=limits.factor, min_pixels=1, max_pixels=ceiling)
    if n * size[0] * size[1] > FRAMES * limits.hard_total_pixels:
        message = (
            f"The clip would be {n} frames of {size[1]}x{size[0]} pixels, {n * size[0] * size[1] // block // FRAMES} "
            f"tokens, more than the {limits.hard_total_pixels // block} allowed: ask for fewer frames, or a smaller "
            "max_pixels with a smaller min_pixels."
        )
        raise invalid_media("video", message, code="image_too_large", param=param)
    return size


def listed_frame_size(
    sizes: Sequence[tuple[int, int]],
    budget: PixelBudget,
    choice: FrameChoice,
    limits: ClipLimits,
    *,
    param: str | None = None,
) -> tuple[int, int]:
    """The (height, width) in pixels to which each picture of a clip that comes as a list of pictures is resized.

    `sizes` are the (height, width) of the upright pictures. As `qwen_vl_utils.fetch_video`: every picture is a frame,
    an odd number repeats the last; each picture's size is first fitted as that of a picture, with the same budget, and
    the common result then as that of a frame. Two things differ: sides snap to 28 where 0.0.14 snaps the first step to
    56 by a mistake; and only the size goes through both steps, so that the pixels are resized once.

    Pictures of several sizes pass where the first step brings them to the same size, as there, and always with
    resized_height and resized_width. Otherwise raises InvalidVideo (invalid_video), as for a list that is empty or
    longer than the operator's ceiling; else raises as `frame_size`.
    """
    _check_budget(budget, limits, param)
    if not 1 <= len(sizes) <= limits.hard_max_frames:
        message = f"The clip has {len(sizes)} frames: send 1 to {limits.hard_max_frames}."
        raise invalid_media("video", message, code="invalid_image", param=param)
    ceiling = limits.hard_max_pixels
    low = min(_PICTURE_MIN * limits.factor**2, ceiling)
    as_picture = PixelLimits(low, ceiling, ceiling, factor=limits.factor, max_ratio=limits.max_ratio)
    fitted: dict[tuple[int, int], tuple[int, int]] = {}
    for number, size in enumerate(sizes, 1):
        if size not in fitted:
            _check_ratio(*size, limits, param)
            fitted[size] = target_size(*size, budget, as_picture, param=param)
        if fitted[size] != fitted[sizes[0]]:
            shape, first = f"{size[1]}x{size[0]}", f"{sizes[0][1]}x{sizes[0][0]}"
            message = (
                f"Frame {number} of the clip is {shape} pixels and the first is {first}: send frames of one "
                "size, or give resized_height and resized_width."
            )
            raise invalid_media("video", message, code="invalid_image", param=param)
    return frame_size(*fitted[sizes[0]], _ceil_even(len(sizes)), budget, choice, limits, param=param)


def _check_frames(choice: FrameChoice, limits: ClipLimits, param: str | None) -> None:
    def refuse(name: str, reason: str) -> BadRequest:
        return BadRequest(f"{name} {reason}", param=param or name)

    for name in ("fps", "sample_fps", "video_start", "video_end"):
        seconds: float | None = getattr(choice, name)
        if seconds is None:
            continue
        if not _is_finite(seconds):
            raise refuse(name, "must be a finite number.")
        if seconds <= 0 and name != "video_start":  # a start before the beginning is the beginning
            raise refuse(name, "must be more than 0.")
    for name, least in (("nframes", FRAMES), ("min_frames", 1), ("max_frames", FRAMES), ("total_pixels", 1)):
        count: int | None = getattr(choice, name)
        if count is None:
            continue
        if count < least:
            raise refuse(name, f"must be at least {least}.")
        if name in ("nframes", "min_frames") and count > limits.hard_max_frames:
            raise refuse(name, f"is more than this server allows, {limits.hard_max_frames} frames for a clip.")

    if choice.fps is not None and choice.nframes is not None:
        raise refuse("fps", "and nframes exclude each other: give one of them.")
    if choice.min_frames is not None and choice.max_frames is not None and choice.min_frames > choice.max_frames:
        raise refuse("min_frames", "is more than max_frames.")
    start, end = choice.video_start, choice.video_end
    if start is not None and end is not None and start >= end:
        raise refuse("video_start", "must be before video_end.")


def _check_budget(budget: PixelBudget, limits: ClipLimits, param: str | None) -> None:
    # The model's own maximum is left out: a client's higher minimum lifts it.
    ceiling = limits.hard_max_pixels
    check_budget(
        budget,
        PixelLimits(limits.frame_min_pixels, ceiling, ceiling, factor=limits.factor, max_ratio=limits.max_ratio),
        param=param,
    )


def _frame_range(total_frames: int, video_fps: float, choice: FrameChoice, param: str | None) -> tuple[int, int]:
    """First and last frame between video_start and video_end; `calculate_video_frame_range`, float for float."""
    seconds = total_frames / video_fps
    start, end = 0, total_frames - 1
    if choice.video_start is not None:
        start = math.ceil(max(0.0, min(choice.video_start, seconds)) * video_fps)
    if choice.video_end is not None:
        end = min(math.floor(max(0.0, min(choice.video_end, seconds)) * video_fps), end)
    if start >= end:
        name = "video_start" if choice.video_start is not None else "video_end"
        reason = f"leaves fewer than two frames of the clip, which has {total_frames} in {seconds:.2f} seconds."
        raise BadRequest(f"{name} {reason}", param=param or name)
    return start, end


def _count(available: int, video_fps: float, choice: FrameChoice, limits: ClipLimits, param: str | None) -> int:
    """How many of `available` frames, at least two, are taken; `smart_nframes`, float for float."""
    if choice.nframes is not None:
        n = round(choice.nframes / FRAMES) * FRAMES
        if n > available:
            reason = f"is {n} when rounded to an even number, more than the {available} frames of the clip."
            raise BadRequest(f"nframes {reason}", param=param or "nframes")
        return min(n, _floor_even(limits.hard_max_frames))
    least = _ceil_even(limits.min_frames if choice.min_frames is None else choice.min_frames)
    most = min(limits.max_frames, available) if choice.max_frames is None else choice.max_frames
    most = _floor_even(min(most, limits.hard_max_frames))
    wanted = available / video_fps * (limits.fps if choice.fps is None else choice.fps)
    return _floor_even(min(max(wanted, least), most, available))


def _spread(start: int, end: int, n: int) -> list[int]:
    """`n` whole numbers from `start` to `end`, evenly spread."""
    # torch itself, not an imitation: a value near one half rounds as its 32-bit kernel happens to add, and that is what
    # the reference gets. Loaded here, so that checking a request does not wait for it.
    import torch

    frames: list[int] = torch.linspace(start, end, n).round().long().tolist()
    return frames


def _most_pixels(low: int, n: int, budget: PixelBudget, choice: FrameChoice, limits: ClipLimits) -> float:
    """The most pixels of each of `n` frames whose least is `low`; `fetch_video`, float for float."""
    total = limits.total_pixels if choice.total_pixels is None else choice.total_pixels
    share = min(total, limits.hard_total_pixels) / n * FRAMES
    most = max(min(limits.frame_max_pixels, share), int(low * 1.05))
    if budget.max_pixels is not None:
        most = min(budget.max_pixels, most)
    return min(most, limits.hard_max_pixels)


def _check_ratio(height: int, width: int, limits: ClipLimits, param: str | None) -> None:
    if max(height, width) > limits.max_ratio * min(height, width):
        message = f"The clip is {width}x{height} pixels: one side may be at most {limits.max_ratio:g} times the other."
        raise invalid_media("video", message, code="invalid_image", param=param)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _floor_even(value: float) -> int:
    return math.floor(value / FRAMES) * FRAMES


def _ceil_even(value: float) -> int:
    return math.ceil(value / FRAMES) * FRAMES
