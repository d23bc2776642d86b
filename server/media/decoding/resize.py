"""Resize pictures with Pillow's bicubic filter, at several times Pillow's speed.

torch's uint8 kernel for antialiased bicubic has the same filter (a = -0.5, support widened when shrinking) and the same
rounding between its two passes, vectorised. A pass differs from Pillow's by one level at most; both passes by two,
provided that they run in Pillow's order, since a pass clips what overshoots 0..255.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def resize(rgb: Pixels, height: int, width: int) -> Pixels:
    """`rgb`, uint8 [H, W, 3], as uint8 [height, width, 3]; the same array where the size is already right.

    Within 2 levels of `PIL.Image.resize((width, height), BICUBIC)`. Uses as many threads as torch is set to.
    """
    passes = [(rgb.shape[0], width), (height, width)]
    if vertical_first(rgb.shape[0], rgb.shape[1], height, width):
        passes[0] = (height, rgb.shape[1])
    for size in passes:
        if rgb.shape[:2] != size:
            rgb = _one_pass(rgb, size)
    return rgb


def vertical_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Whether Pillow 13 runs the vertical pass first (libImaging/Resample.c); older ones never do."""
    shrinks_by = height - new_height
    return shrinks_by > 0 and shrinks_by > 2 * (width - new_width)


def _one_pass(rgb: Pixels, size: tuple[int, int]) -> Pixels:
    # Batch first, then permute: strides that torch knows as channels_last, the layout of its vectorised kernel.
    batch = torch.from_numpy(np.require(rgb, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(batch, size, mode="bicubic", antialias=True)
    pixels: Pixels = resized[0].permute(1, 2, 0).contiguous().numpy()
    return pixels
