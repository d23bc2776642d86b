"""What the house asks of a model family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from server.core import Message, Picture, Prompt


class UnknownFamilyError(Exception):
    """The model is of no known family, or its files are not those of its family."""


class Family(Protocol):
    """How one family of models wants its prompts."""

    min_pixels: int
    """The model's own least number of pixels of a picture."""
    max_pixels: int
    """The model's own greatest number of pixels of a picture."""
    factor: int
    """Sides of a resized picture are multiples of this many pixels."""
    merge_size: int
    """Patches merged into one token along each side."""

    def tokens_at_least(self, characters: int) -> int:
        """A lower bound, found in no time, of the tokens that so many characters of text cost."""

    def build_prompt(self, messages: Sequence[Message], pictures: Sequence[Picture]) -> Prompt:
        """Token ids with every picture's placeholders expanded; `pictures` in reading order."""
