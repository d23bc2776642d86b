"""The Qwen-VL family (Qwen2-VL, AIN, Qwen2.5-VL): template, placeholders and pixel limits.

The template is that of the model's chat_template.jinja (ChatML with vision markers), built from token ids and not as
one string: what a user writes is tokenised apart from the control tokens and can therefore never become one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from server.core import Message, Picture, PictureSource, Placed, Prompt
from server.families.family import UnknownFamilyError
from server.families.text import Tokens

DEFAULT_SYSTEM = "You are a helpful assistant."
"""Said by the template itself when the first message is not a system message."""
PATCH_SIZE = 14
MERGE_SIZE = 2
CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


class QwenVl:
    """One model of the family, from the files in its folder."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._tokens = Tokens(folder)
        self._start, self._end, self._vision_start, self._vision_end, self._image_pad = (
            self._tokens.control_id(name) for name in CONTROL_TOKENS
        )
        vision = config.get("vision_config", {})
        self.merge_size = int(vision.get("spatial_merge_size", MERGE_SIZE))
        patch_size = int(vision.get("patch_size", PATCH_SIZE))
        if (patch_size, self.merge_size) != (PATCH_SIZE, MERGE_SIZE):
            raise UnknownFamilyError(
                f"This model has patches of {patch_size} pixels, {self.merge_size} merged; only {PATCH_SIZE} pixels, "
                f"{MERGE_SIZE} merged, can be cut here."
            )
        self.factor = patch_size * self.merge_size
        self.min_pixels, self.max_pixels = _pixel_limits(folder)

    def tokens_at_least(self, characters: int) -> int:
        """See Family.tokens_at_least."""
        return self._tokens.at_least(characters)

    def build_prompt(self, messages: Sequence[Message], pictures: Sequence[Picture]) -> Prompt:
        """The whole prompt, up to where the assistant speaks; see Family.build_prompt."""
        if not messages or messages[0].role != "system":
            messages = [Message("system", (DEFAULT_SYSTEM,)), *messages]
        remaining = iter(pictures)
        pieces: list[int | str | Picture] = []
        for message in messages:
            pieces += [self._start, f"{message.role}\n"]
            pieces += [next(remaining) if isinstance(part, PictureSource) else part for part in message.content]
            pieces += [self._end, "\n"]
        pieces += [self._start, "assistant\n"]
        return self._assemble(pieces)

    def _assemble(self, pieces: Sequence[int | str | Picture]) -> Prompt:
        """Neighbouring strings are tokenised as one, as they would be in a rendered template."""
        ids: list[int] = []
        placed: list[Placed] = []
        for kind, run in groupby(pieces, key=type):
            if kind is str:
                ids += self._tokens.encode("".join(map(str, run)))
                continue
            for piece in run:
                if isinstance(piece, int):
                    ids.append(piece)
                elif not isinstance(piece, str):
                    placed.append(self._place(ids, piece))
        return Prompt(ids, tuple(placed))

    def _place(self, ids: list[int], picture: Picture) -> Placed:
        grid_t, grid_h, grid_w = picture.grid_thw
        length = grid_t * grid_h * grid_w // self.merge_size**2
        ids.append(self._vision_start)
        offset = len(ids)
        ids += [self._image_pad] * length
        ids.append(self._vision_end)
        return Placed(picture, offset, length)


def _pixel_limits(folder: Path) -> tuple[int, int]:
    """(min_pixels, max_pixels) in any of the spellings that preprocessor_config.json has had."""
    try:
        config = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnknownFamilyError(f"{folder} holds no readable preprocessor_config.json: {error}") from error
    size = config.get("size") or {}
    low = config.get("min_pixels") or size.get("min_pixels") or size.get("shortest_edge")
    high = config.get("max_pixels") or size.get("max_pixels") or size.get("longest_edge")
    if not low or not high:
        raise UnknownFamilyError(f"{folder}/preprocessor_config.json names no min_pixels and max_pixels.")
    return int(low), int(high)
