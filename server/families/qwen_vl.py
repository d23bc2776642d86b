"""The Qwen-VL family (Qwen2-VL, AIN, Qwen2.5-VL): template, placeholders and pixel limits.

The template is that of the model's chat_template.jinja (ChatML with vision markers), built from token ids and not as
one string: what a user writes is tokenised apart from the control tokens and can therefore never become one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from server.core import Clip, Message, Opened, Picture, Placeholder, Prompt
from server.families.family import UnknownFamilyError
from server.families.pieces import Piece, assemble
from server.families.text import Tokens

DEFAULT_SYSTEM = "You are a helpful assistant."
"""Said by the template itself when the first message is not a system message."""
MERGE_SIZE = 2
FRAMES_PER_PATCH = 2
CONTROL_TOKENS = (
    "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip


class QwenVl:
    """One model of Qwen2-VL's kind, from the files in its folder."""

    patch_size: int = 14
    merge_size = MERGE_SIZE
    takes_clips = True
    default_system: ClassVar[str | None] = DEFAULT_SYSTEM

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """`config` is the content of config.json.

        Raises:
            UnknownFamilyError: a file is missing or broken, or the model is cut in another way than its kind.
        """
        self._tokens = Tokens(folder)
        self._start, self._end, self._vision_start, self._vision_end, self._image_pad, self._video_pad = (
            self._tokens.control_id(name) for name in CONTROL_TOKENS
        )
        self._check_patches(config.get("vision_config") or {})
        self.factor = self.patch_size * self.merge_size
        self.min_pixels, self.max_pixels = _pixel_limits(folder / "preprocessor_config.json")
        self.max_frame_pixels = self._frame_limit(folder / "video_preprocessor_config.json")

    def tokens_at_least(self, characters: int) -> int:
        """See Family.tokens_at_least."""
        return self._tokens.at_least(characters)

    def build_prompt(
        self, messages: Sequence[Message], opened: Sequence[Opened], most_tokens: int | None = None
    ) -> Prompt:
        """The whole prompt, up to where the assistant speaks; see Family.build_prompt."""
        if self.default_system is not None and (not messages or messages[0].role != "system"):
            messages = [Message("system", (self.default_system,)), *messages]
        remaining = iter(opened)
        pieces: list[Piece] = []
        for message in messages:
            pieces += [self._start, f"{message.role}\n"]
            for part in message.content:
                pieces += [part] if isinstance(part, str) else next(remaining).pictures
            pieces += [self._end, "\n"]
        pieces += [self._start, *self._opening()]
        return assemble(pieces, self._tokens, self._place, most_tokens)

    def _opening(self) -> Sequence[Piece]:
        """What the assistant's turn begins with."""
        return ("assistant\n",)

    def _place(self, ids: list[int], picture: Picture) -> Placeholder:
        ids.append(self._vision_start)
        placed = self._place_clip(ids, picture) if isinstance(picture, Clip) else self._place_picture(ids, picture)
        ids.append(self._vision_end)
        return placed

    def _place_picture(self, ids: list[int], picture: Picture) -> Placeholder:
        return self._place_run(ids, picture, self._image_pad)

    def _place_clip(self, ids: list[int], clip: Clip) -> Placeholder:
        return self._place_run(ids, clip, self._video_pad)

    def _place_run(
        self, ids: list[int], picture: Picture, pad: int, extras: Mapping[str, float] | None = None
    ) -> Placeholder:
        grid_t, grid_h, grid_w = picture.grid_thw
        offset, length = len(ids), grid_t * grid_h * grid_w // self.merge_size**2
        ids += [pad] * length
        return Placeholder(picture, offset, length, extras=extras or {})

    def _frame_limit(self, settings: Path) -> int:
        """The most pixels of a frame; the model's settings for clips, where it has any, name it."""
        return _pixel_limits(settings)[1] if settings.is_file() else self.max_pixels

    def _check_patches(self, vision: Mapping[str, Any]) -> None:
        found = (
            vision.get("patch_size", self.patch_size),
            vision.get("spatial_merge_size", self.merge_size),
            vision.get("temporal_patch_size", FRAMES_PER_PATCH),
        )
        wanted = (self.patch_size, self.merge_size, FRAMES_PER_PATCH)
        if found != wanted:
            raise UnknownFamilyError(
                f"This model's patches (width in pixels, merged along each side, frames) are {found}; only {wanted} "
                "can be cut for its kind."
            )


class Qwen25Vl(QwenVl):
    """One model of Qwen2.5-VL's kind: it is told how far apart in time the frames of a clip are."""

    def _place_clip(self, ids: list[int], clip: Clip) -> Placeholder:
        # As transformers' Qwen2_5_VLProcessor: from one patch of FRAMES_PER_PATCH frames to the next.
        return self._place_run(ids, clip, self._video_pad, {"second_per_grid_ts": FRAMES_PER_PATCH / clip.fps})


def _pixel_limits(settings: Path) -> tuple[int, int]:
    """(min_pixels, max_pixels) in any of the spellings that a preprocessor's settings have had."""
    try:
        config = json.loads(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownFamilyError(f"{settings.parent} holds no readable {settings.name}: {error}") from error
    size = config.get("size") or {}
    low = config.get("min_pixels") or size.get("min_pixels") or size.get("shortest_edge")
    high = config.get("max_pixels") or size.get("max_pixels") or size.get("longest_edge")
    if not low or not high:
        raise UnknownFamilyError(f"{settings} names no min_pixels and max_pixels.")
    return int(low), int(high)
