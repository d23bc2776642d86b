"""Cut pictures and clips into the patches that the vision tower reads.

The order is that of transformers' Qwen2-VL processors (`Qwen2VLImageProcessor._preprocess`): pair of frames by pair of
frames and in it block by block, the MERGE x MERGE patches that merge into one token standing together; each patch is
flattened as [3 channels, 2 frames, patch, patch]. Values stay 0..255: the engine normalises them on its device.
"""

from __future__ import annotations

import math

import numpy as np

from server.media.limits import CHANNELS, PIXELS, patch_bytes
from server.media.pixels import FRAMES, MERGE, PATCH
from server.media.workers.channel import Growing, Octets
from server.media.workers.jobs import Patches


def patchify(frames: Octets, patch: int = PATCH) -> tuple[Octets, tuple[int, int, int]]:
    """Patches of a clip, uint8 [n, H, W, 3], or of a still picture, which is a clip of one frame.

    Both sides are multiples of `patch` * MERGE; an odd number of frames repeats the last. Returns uint8
    [grid_t * grid_h * grid_w, 3 * 2 * patch * patch] and the grid, where grid_t counts pairs of frames. Raises
    ValueError for another shape or type.
    """
    made = measure(frames, patch)
    patches = np.empty(made.size, np.uint8)
    _fill(patches, frames, patch)
    return patches.reshape(-1, made.bytes_each), made.grid_thw


def cut_into(memory: Growing, frames: Octets, patch: int) -> Patches:
    """Write the patches of `frames` into memory; see `patchify`."""
    made = measure(frames, patch)
    _fill(memory.append(made.size), frames, patch)
    return made


def measure(frames: Octets, patch: int) -> Patches:
    """How many patches `frames` have. Raises ValueError for frames that cannot be cut."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != CHANNELS or 0 in frames.shape:
        raise ValueError(f"expected uint8 [frames, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    count, height, width, _ = frames.shape
    if patch == PIXELS:
        return Patches((count, height, width), patch_bytes(patch))
    factor = patch * MERGE
    if height % factor or width % factor:
        raise ValueError(f"sides must be multiples of {factor}, got {height}x{width}")
    grid = math.ceil(count / FRAMES), height // patch, width // patch
    return Patches(grid, patch_bytes(patch))


def _fill(room: Octets, frames: Octets, patch: int) -> None:
    if patch == PIXELS:
        room[:] = frames.reshape(-1)
        return
    count, height, width, _ = frames.shape
    side = patch * MERGE
    pairs, rows, columns = math.ceil(count / FRAMES), height // side, width // side
    # [.., patches of a row of blocks, channels, frames, pixels of a patch]
    target = room.reshape(pairs, rows, columns * MERGE**2, CHANNELS, FRAMES, patch**2)
    # Two steps, each with long runs: whole lines of a patch come together first, then its channels come apart. A row of
    # blocks at a time stays in the processor's cache.
    line = np.dtype((np.void, patch * CHANNELS))
    gathered = np.empty((columns, MERGE, MERGE, patch), line)
    pixels = gathered.view(np.uint8).reshape(columns * MERGE**2, patch**2, CHANNELS).transpose(0, 2, 1)
    for pair, row in np.ndindex(pairs, rows):
        into = target[pair, row]
        for place, frame in enumerate(frames[pair * FRAMES : (pair + 1) * FRAMES]):
            band = frame[row * side : (row + 1) * side].reshape(MERGE, patch, columns, MERGE, patch * CHANNELS)
            gathered[...] = np.ascontiguousarray(band).view(line)[..., 0].transpose(2, 0, 3, 1)
            into[:, :, place] = pixels
        if (pair + 1) * FRAMES > count:
            into[:, :, 1] = into[:, :, 0]
