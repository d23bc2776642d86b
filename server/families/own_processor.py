"""Any other model that shows pictures to a language model: its own template, and its own processor in the engine.

Nothing is known here of how such a model cuts pictures. They are handed to the engine as they are, one placeholder of
the template standing for each, and the engine has the model's processor resize, cut and expand them. Clips need more
knowledge of the model than that, and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.core import Clip, Message, Opened, Picture, Placeholder, Prompt
from server.errors import BadRequest
from server.families.family import UnknownFamilyError
from server.families.pieces import Piece, assemble
from server.families.template import Rendered, Template, TemplateError, Turn
from server.families.text import Tokens

PLACEHOLDERS = {"internvl_chat": "<image>"}
"""What people write for a picture, by `model_type`, for templates that take only text. Others say it themselves."""
PIXELS_IN_TOKEN_SIDE = 28
"""An estimate: Qwen's models have 28 x 28 pixels in a token, InternVL 448 x 448 in 256."""
MAX_PIXELS = 16384 * PIXELS_IN_TOKEN_SIDE**2
"""Larger pictures are reduced before the model's own processor sees them: as many pixels as Qwen's models see."""


class OwnProcessor:
    """One model, from the files in its folder."""

    min_pixels = 1
    max_pixels = MAX_PIXELS
    max_frame_pixels = MAX_PIXELS
    patch_size = 1
    merge_size = PIXELS_IN_TOKEN_SIDE
    factor = 1
    takes_clips = False

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        """`config` is the content of config.json.

        Raises:
            UnknownFamilyError: a file is missing or broken, or the template says nothing for a picture.
        """
        self._tokens = Tokens(folder)
        self._template = Template(folder)
        self._typed = PLACEHOLDERS.get(str(config.get("model_type")))
        self._placeholder = self._typed or self._said_for_a_picture()
        self._run = self._tokenised(self._placeholder)
        self._probe()

    def tokens_at_least(self, characters: int) -> int:
        """See Family.tokens_at_least."""
        return self._tokens.at_least(characters)

    def build_prompt(
        self, messages: Sequence[Message], opened: Sequence[Opened], most_tokens: int | None = None
    ) -> Prompt:
        """The whole prompt, up to where the assistant speaks; see Family.build_prompt.

        Raises:
            BadRequest: the template does not take such messages, or they hold a clip.
        """
        turns, texts, pictures = _spread(messages, opened)
        if any(isinstance(picture, Clip) for picture in pictures):
            raise BadRequest("This model is shown pictures only: leave the video out.", param="messages")
        try:
            rendered = self._template.render(turns, picture=self._typed)
            pieces = self._pieces(rendered, texts, pictures)
        except TemplateError as error:
            raise BadRequest(f"The model's chat template refuses these messages: {error}", param="messages") from error
        return assemble(pieces, self._tokens, self._place, most_tokens)

    def _place(self, ids: list[int], picture: Picture) -> Placeholder:
        offset = len(ids)
        ids += self._run
        return Placeholder(picture, offset, len(self._run))

    def _pieces(self, rendered: Rendered, texts: Sequence[str], pictures: Sequence[Picture]) -> list[Piece]:
        """The template's words with control tokens alive and pictures in place, people's texts with neither."""
        remaining = iter(pictures)
        pieces: list[Piece] = []
        for said in rendered:
            if isinstance(said, int):
                pieces.append(texts[said])
                continue
            before, *after = said.split(self._placeholder)
            pieces += self._tokens.split(before)
            for words in after:
                picture = next(remaining, None)
                if picture is None:
                    raise TemplateError("it shows pictures that are not there")
                pieces += [picture, *self._tokens.split(words)]
        if next(remaining, None) is not None:
            raise TemplateError("it leaves pictures out")
        return pieces

    def _said_for_a_picture(self) -> str:
        """What the template says more where there is a picture between two texts."""
        without, with_one = (self._said(turn) for turn in (("", ""), ("", None, "")))
        before = _alike(without, with_one)
        after = _alike(without[before:][::-1], with_one[before:][::-1])
        said = with_one[before : len(with_one) - after].strip()
        if not said:
            raise UnknownFamilyError("The model's chat template says nothing for a picture.")
        return said

    def _probe(self) -> None:
        """Fail at start-up, and not at a client's request, where placeholders cannot be told."""
        for turn in (("",), ("", None), (None, ""), (None, "", None, None)):
            if self._said(turn).count(self._placeholder) != turn.count(None):
                raise UnknownFamilyError("The model's chat template does not say the same for each picture.")

    def _said(self, turn: Sequence[str | None]) -> str:
        """What the template says in a conversation of one turn, with a mark for each text."""
        try:
            rendered = self._template.render([("user", turn)], picture=self._typed)
        except TemplateError as error:
            raise UnknownFamilyError(f"The model's chat template cannot be used: {error}.") from error
        return "".join("\0" if isinstance(piece, int) else piece for piece in rendered)

    def _tokenised(self, words: str) -> list[int]:
        ids: list[int] = []
        for piece in self._tokens.split(words):
            ids += self._tokens.encode(piece) if isinstance(piece, str) else [piece]
        return ids


def _alike(one: str, other: str) -> int:
    """How many letters both begin with."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _spread(messages: Sequence[Message], opened: Sequence[Opened]) -> tuple[list[Turn], list[str], list[Picture]]:
    """Turns for the template, and in their order the texts and the pictures that it is not shown."""
    remaining = iter(opened)
    turns: list[Turn] = []
    texts: list[str] = []
    pictures: list[Picture] = []
    for message in messages:
        turn: list[str | None] = []
        for part in message.content:
            if isinstance(part, str):
                turn.append(part)
                texts.append(part)
            else:
                shown = next(remaining).pictures
                turn += [None] * len(shown)
                pictures += shown
        turns.append((message.role, turn))
    return turns, texts, pictures
