"""Pixels to patches, as the Qwen2-VL preprocessor does it (the training needs it fast and without torchvision)."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from server.demo.drawing import Picture, Size

PATCH: Final = 14
MERGE: Final = 2
CELL: Final = PATCH * MERGE
"""Pixels along a side of one token."""

MIN_PIXELS: Final = 3136
MAX_PIXELS: Final = 200704
MAX_CLIP_PIXELS: Final = 50176
"""Pixels of one frame: clips need speed more than detail."""

Bytes = NDArray[np.uint8]
Grid = tuple[int, int, int]
"""Steps in time, rows and columns of patches."""


def smart_resize(size: Size, smallest: int = MIN_PIXELS, largest: int = MAX_PIXELS) -> Size:
    """The size the preprocessor scales to: multiples of 28 with an area between the limits (pixels)."""
    width, height = size
    wide, high = max(CELL, round(width / CELL) * CELL), max(CELL, round(height / CELL) * CELL)
    if wide * high > largest:
        shrink = math.sqrt(width * height / largest)
        wide = max(CELL, math.floor(width / shrink / CELL) * CELL)
        high = max(CELL, math.floor(height / shrink / CELL) * CELL)
    elif wide * high < smallest:
        grow = math.sqrt(smallest / (width * height))
        wide, high = math.ceil(width * grow / CELL) * CELL, math.ceil(height * grow / CELL) * CELL
    return wide, high


def fit(picture: Picture, largest: int = MAX_PIXELS) -> Picture:
    """Scale as the preprocessor would; a picture that already fits is returned as it is."""
    target = smart_resize(picture.size, largest=largest)
    return picture if target == picture.size else picture.resize(target, Image.Resampling.BICUBIC)


def image_patches(picture: Picture) -> tuple[Bytes, Grid]:
    """Bytes (patches, 3, 196) in the model's order (2x2 patches of a token side by side), and the grid."""
    pixels = np.asarray(picture)
    rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
    blocks = pixels.reshape(rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH, 3)
    ordered = blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * columns, 3, PATCH * PATCH)
    return np.ascontiguousarray(ordered), (1, rows, columns)


def clip_patches(frames: Sequence[Picture]) -> tuple[Bytes, Grid]:
    """Bytes (patches, 3, 2, 196): frames go in twos, and an odd last one is repeated."""
    paired = [*frames, frames[-1]] if len(frames) % 2 else list(frames)
    each = [image_patches(frame) for frame in paired]
    steps = [np.stack((each[at][0], each[at + 1][0]), axis=2) for at in range(0, len(each), 2)]
    _, rows, columns = each[0][1]
    return np.concatenate(steps), (len(steps), rows, columns)


@lru_cache(maxsize=4096)
def patch_places(grid: Grid) -> NDArray[np.int64]:
    """Row and column of every patch (patches, 2), in the model's order."""
    steps, rows, columns = grid
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    places = np.stack((row, column), axis=-1)
    blocks = places.reshape(rows // MERGE, MERGE, columns // MERGE, MERGE, 2).transpose(0, 2, 1, 3, 4)
    return np.tile(blocks.reshape(rows * columns, 2), (steps, 1))


@lru_cache(maxsize=4096)
def token_places(grid: Grid) -> NDArray[np.int64]:
    """Time, row and column (3, tokens) of every vision token, counted from the first."""
    steps, rows, columns = grid
    axes = (np.arange(steps), np.arange(rows // MERGE), np.arange(columns // MERGE))
    return np.stack([axis.reshape(-1) for axis in np.meshgrid(*axes, indexing="ij")])
