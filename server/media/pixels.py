"""How large a picture becomes: pure arithmetic, no files and no sockets.

The formulas are those of qwen-vl-utils 0.0.14 (`vision_process.smart_resize`, `fetch_image`). Sizes are in pixels,
height before width unless a name says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from server.core import PixelBudget
from server.errors import BadRequest, InvalidImage

PATCH = 14
"""Side of a patch in pixels."""
MERGE = 2
"""The vision tower merges MERGE x MERGE patches into one token."""
FRAMES = 2
"""Frames in a patch along time; a still picture fills them with the same frame."""
FACTOR = PATCH * MERGE
"""Every side of a resized picture is a multiple of this many pixels."""
MAX_RATIO = 200
"""A picture whose long side is more than this many times its short side is refused."""


@dataclass(frozen=True, slots=True)
class PixelLimits:
    """The model's default pixel budget, and the most that a client may ask for.

    The defaults are those of AIN and of qwen-vl-utils: 4 to 16384 tokens of 28 x 28 pixels each.
    """

    min_pixels: int = 4 * FACTOR**2
    """A smaller picture is enlarged to about this many pixels, unless the client asks otherwise."""
    max_pixels: int = 16384 * FACTOR**2
    """A larger picture is reduced to at most this many pixels, unless the client asks otherwise."""
    hard_max_pixels: int = 16384 * FACTOR**2
    """The operator's ceiling: no resized picture has more pixels, whatever a client asks."""
    factor: int = FACTOR
    """Every resized side is a multiple of this."""
    patch: int = PATCH
    """Side of a patch in pixels."""
    merge: int = MERGE
    """Patches on each side of what becomes one token."""
    max_ratio: float = MAX_RATIO
    """A picture whose long side is more than this many times its short side is refused."""

    def __post_init__(self) -> None:
        """Raises ValueError unless one block <= max_pixels and 1 <= min_pixels <= max_pixels <= hard_max_pixels."""
        if not 1 <= self.max_ratio <= MAX_RATIO:
            raise ValueError(f"max_ratio must be from 1 to {MAX_RATIO}")
        if self.factor < 1 or self.max_pixels < self.factor**2:
            raise ValueError(f"max_pixels is {self.max_pixels}, less than one block of {self.factor}x{self.factor}")
        if not 1 <= self.min_pixels <= self.max_pixels <= self.hard_max_pixels:
            raise ValueError("pixel limits must satisfy 1 <= min_pixels <= max_pixels <= hard_max_pixels")

    @property
    def token_pixels(self) -> int:
        """Pixels of a still picture that one token stands for."""
        return (self.patch * self.merge) ** 2


def smart_resize(
    height: int, width: int, *, factor: int = FACTOR, min_pixels: int, max_pixels: float
) -> tuple[int, int]:
    """The (height, width), multiples of `factor`, closest in shape whose area fits min_pixels..max_pixels.

    Equal to `qwen_vl_utils.vision_process.smart_resize` 0.0.14 wherever that gives a usable size: each side is rounded
    to a multiple of `factor` (half to even, at least one); over `max_pixels` both sides are scaled down and floored;
    under `min_pixels` both are scaled up and ceiled, which may pass `max_pixels` when the two limits are close.

    It differs in one place. Flooring can give a side of 0 (4000 x 20 pixels at max_pixels 50176), which fails later
    there; here the short side becomes one `factor` and the long side as many as `max_pixels` allows, so the budget
    holds and only the shape gives way.

    Raises ValueError for a side below 1, for min_pixels > max_pixels, for max_pixels below one block, and for sides
    whose ratio is over 200.
    """
    if height < 1 or width < 1:
        raise ValueError(f"sides must be at least 1 pixel, got {height}x{width}")
    if min_pixels > max_pixels:
        raise ValueError(f"min_pixels {min_pixels} is more than max_pixels {max_pixels}")
    if max_pixels < factor**2:
        raise ValueError(f"max_pixels {max_pixels} is less than one block of {factor}x{factor}")
    if _too_narrow(height, width):
        raise ValueError(f"one side is more than {MAX_RATIO} times the other, got {height}x{width}")
    new_height = max(factor, round(height / factor) * factor)
    new_width = max(factor, round(width / factor) * factor)
    if new_height * new_width > max_pixels:
        shrink = math.sqrt((height * width) / max_pixels)
        new_height = math.floor(height / shrink / factor) * factor
        new_width = math.floor(width / shrink / factor) * factor
        longest = int(max_pixels // factor**2) * factor
        if new_height == 0:
            return factor, longest
        if new_width == 0:
            return longest, factor
    elif new_height * new_width < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        new_height = math.ceil(height * grow / factor) * factor
        new_width = math.ceil(width * grow / factor) * factor
    return new_height, new_width


def check_budget(budget: PixelBudget, limits: PixelLimits, *, param: str | None = None) -> None:
    """Refuse a budget that no picture could satisfy, before any picture is fetched.

    `param` is where the picture stands in the request; without it the error carries the field's name.

    Raises BadRequest, whose message begins with the field's name: a value below 1, a size or minimum above the
    operator's ceiling, max_pixels below one block, min_pixels above max_pixels (its own or the model's), resized_height
    without resized_width or the reverse, or a ratio of the two over `limits.max_ratio`.
    """

    def refuse(name: str, reason: str) -> BadRequest:
        return BadRequest(f"{name} {reason}", param=param or name)

    for name in ("min_pixels", "max_pixels", "resized_height", "resized_width"):
        value: int | None = getattr(budget, name)
        if value is not None and value < 1:
            raise refuse(name, "must be at least 1.")
        # A bound above the ceiling is honoured by the ceiling; a size or a minimum above it cannot be.
        if name != "max_pixels" and value is not None and value > limits.hard_max_pixels:
            raise refuse(name, f"is more than this server allows, {limits.hard_max_pixels} pixels for a picture.")

    height, width = budget.resized_height, budget.resized_width
    if height is not None and width is None:
        raise refuse("resized_height", "counts only together with resized_width.")
    if width is not None and height is None:
        raise refuse("resized_width", "counts only together with resized_height.")
    if height is not None and width is not None and _too_narrow(height, width, limits.max_ratio):
        raise refuse("resized_height", f"and resized_width must not differ by more than {limits.max_ratio:g} times.")

    block = limits.factor**2
    if budget.max_pixels is not None and budget.max_pixels < block:
        raise refuse("max_pixels", f"must be at least {block}, one block of {limits.factor}x{limits.factor} pixels.")
    low, high = _pixel_range(budget, limits)
    if low > high and budget.min_pixels is None:
        raise refuse("max_pixels", f"is {high}, less than the model's min_pixels {low}; lower min_pixels with it.")
    if low > high and budget.max_pixels is None:
        raise refuse("min_pixels", f"is {low}, more than the model's max_pixels {high}; raise max_pixels with it.")
    if low > high:
        raise refuse("min_pixels", f"is {low}, more than max_pixels {high}.")


def target_size(
    height: int, width: int, budget: PixelBudget, limits: PixelLimits, *, param: str | None = None
) -> tuple[int, int]:
    """The (height, width) in pixels to which a picture of `height` x `width` is resized.

    As `qwen_vl_utils.fetch_image`: resized_height and resized_width, when given, are rounded to multiples of the factor
    and THEN brought into min_pixels of the model .. the operator's ceiling, whatever the picture's own size; else the
    picture's size goes through `smart_resize` with the client's pixel limits, or the model's where it gave none. The
    result never exceeds the ceiling, even where qwen-vl-utils rounds up past it.

    Raises BadRequest as `check_budget`, and InvalidImage (invalid_image) where the ratio is over `limits.max_ratio`.
    """
    check_budget(budget, limits, param=param)
    if budget.resized_height is not None and budget.resized_width is not None:
        height, width = budget.resized_height, budget.resized_width
        low, high = limits.min_pixels, limits.hard_max_pixels
    else:
        low, high = _pixel_range(budget, limits)
    if _too_narrow(height, width, limits.max_ratio):
        raise InvalidImage(
            f"The picture is {width}x{height} pixels: one side may be at most {limits.max_ratio:g} times the other.",
            code="invalid_image",
            param=param,
        )
    size = smart_resize(height, width, factor=limits.factor, min_pixels=low, max_pixels=high)
    if size[0] * size[1] > limits.hard_max_pixels:
        size = smart_resize(height, width, factor=limits.factor, min_pixels=1, max_pixels=limits.hard_max_pixels)
    return size


def picture_tokens(grid_thw: tuple[int, int, int], merge: int = MERGE) -> int:
    """How many placeholder tokens a grid of patches takes in the prompt, without the start and end markers."""
    frames, rows, columns = grid_thw
    return frames * rows * columns // merge**2


def most_pixels(budget: PixelBudget, limits: PixelLimits) -> int:
    """About how many pixels a picture has at most after `target_size` with this budget, before its size is known.

    Exact but for a block on each side by which rounding up may pass it.
    """
    if budget.resized_height is not None and budget.resized_width is not None:
        high = max(budget.resized_height * budget.resized_width, limits.min_pixels)
    else:
        high = max(_pixel_range(budget, limits))
    return min(high, limits.hard_max_pixels)


def _too_narrow(height: int, width: int, max_ratio: float = MAX_RATIO) -> bool:
    return max(height, width) / min(height, width) > max_ratio


def _pixel_range(budget: PixelBudget, limits: PixelLimits) -> tuple[int, int]:
    low = limits.min_pixels if budget.min_pixels is None else budget.min_pixels
    high = limits.max_pixels if budget.max_pixels is None else min(budget.max_pixels, limits.hard_max_pixels)
    return low, high
