"""Qwen3-VL: larger patches, no system message of its own, and times written between the frames of a clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.core import Clip, Placeholder
from server.families.pieces import Piece
from server.families.qwen_vl import FRAMES_PER_PATCH, QwenVl
from server.families.template import chat_template

THINK = "<think>"


class Qwen3Vl(QwenVl):
    """One model of Qwen3-VL's kind."""

    patch_size = 16
    default_system = None

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        super().__init__(folder, config)
        # The models that always think begin to do so in the template.
        thinks = f"assistant\\n{THINK}" in (chat_template(folder) or "")
        self._first_words: tuple[Piece, ...] = (
            ("assistant\n", self._tokens.control_id(THINK), "\n") if thinks else ("assistant\n",)
        )

    def _frame_limit(self, settings: Path) -> int:
        return self.max_pixels  # its settings for clips name the pixels of all frames together

    def _opening(self) -> Sequence[Piece]:
        return self._first_words

    def _place_clip(self, ids: list[int], clip: Clip) -> Placeholder:
        """Each patch of two frames between markers of its own, after the time in the middle of the two.

        As transformers' Qwen3VLProcessor since 5.10: `<0.2 seconds>`, tokenised by itself, then the frames, all of it
        between the markers that the template has for the clip.
        """
        offset = len(ids)
        times = _times(clip)
        _, grid_h, grid_w = clip.grid_thw
        pads = [self._video_pad] * (grid_h * grid_w // self.merge_size**2)
        for time in times:
            ids += [*self._tokens.encode(f"<{time:.1f} seconds>"), self._vision_start, *pads, self._vision_end]
        return Placeholder(clip, offset, len(ids) - offset, pad=self._video_pad, extras={"timestamps": times})


def _times(clip: Clip) -> tuple[float, ...]:
    """Seconds from the beginning of the video to the middle of each patch of frames."""
    seconds = clip.seconds or tuple(frame / clip.fps for frame in range(clip.frames))
    seconds += seconds[-1:] * (clip.frames - len(seconds))  # of an odd number of frames the last is shown twice
    return tuple((seconds[i] + seconds[i + FRAMES_PER_PATCH - 1]) / 2 for i in range(0, clip.frames, FRAMES_PER_PATCH))
