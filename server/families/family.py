"""What the house asks of a model family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from server.core import Message, Opened, Prompt


class UnknownFamilyError(Exception):
    """The model is of no known family, or its files are not those of its family."""


class Family(Protocol):
    """How one family of models wants its prompts."""

    min_pixels: int
    """The model's own least number of pixels of a picture."""
    max_pixels: int
    """The model's own greatest number of pixels of a picture."""
    max_frame_pixels: int
    """The model's own greatest number of pixels of a frame of a clip."""
    patch_size: int
    """Side in pixels of the patches that its pictures are cut into.

    1 where the model's own processor resizes and cuts: pictures then come pixel by pixel, and of how many tokens they
    are is known only to the engine.
    """
    merge_size: int
    """Patches merged into one token along each side; an estimate where patches are pixels."""
    factor: int
    """Sides of a resized picture are multiples of this many pixels."""
    takes_clips: bool
    """Whether clips can be shown to the model."""

    def tokens_at_least(self, characters: int) -> int:
        """A lower bound, found in no time, of the tokens that so many characters of text cost."""

    def build_prompt(
        self, messages: Sequence[Message], opened: Sequence[Opened], most_tokens: int | None = None
    ) -> Prompt:
        """Token ids with every picture's placeholders expanded; `opened` has the messages' sources in order.

        Where patches are pixels, a placeholder stands once for each picture, and the engine expands it.

        Raises:
            ContextLengthExceeded: a long text shows early on that all will be more than `most_tokens`. A prompt that is
                returned may still have more.
        """
