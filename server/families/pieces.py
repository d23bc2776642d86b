"""Prompts are put together from pieces: control tokens by id, plain texts, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from server.core import Picture, Placeholder, Prompt
from server.errors import surely_too_long
from server.families.text import Tokens

Piece = int | str | Picture
Place = Callable[[list[int], Picture], Placeholder]
"""Appends to the ids what stands for a picture, and says where it is."""


def assemble(pieces: Sequence[Piece], tokens: Tokens, place: Place, most_tokens: int | None = None) -> Prompt:
    """Neighbouring texts are tokenised as one, as in a rendered template; none becomes a control token.

    Raises:
        ContextLengthExceeded: a text passes `most_tokens` early on, and its rest is not worth tokenising.
    """
    ids: list[int] = []
    placed: list[Placeholder] = []
    for kind, run in groupby(pieces, key=type):
        if kind is str:
            text = "".join(map(str, run))
            if most_tokens is not None:
                _refuse_endless(text, len(ids), tokens, most_tokens)
            ids += tokens.encode(text)
            continue
        for piece in run:
            if isinstance(piece, int):
                ids.append(piece)
            elif isinstance(piece, Picture):
                placed.append(place(ids, piece))
    return Prompt(ids, tuple(placed))


def _refuse_endless(text: str, before: int, tokens: Tokens, most: int) -> None:
    least = before + tokens.more_than(text, max(most - before, 0))
    if least > most:
        raise surely_too_long(most, least)
