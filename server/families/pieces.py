"""Prompts are put together from pieces: control tokens by id, plain texts, pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from server.core import Picture, Placed, Prompt
from server.families.text import Tokens

Piece = int | str | Picture
Place = Callable[[list[int], Picture], Placed]
"""Appends to the ids what stands for a picture, and says where it is."""


def assemble(pieces: Sequence[Piece], tokens: Tokens, place: Place) -> Prompt:
    """Neighbouring texts are tokenised as one, as in a rendered template; none becomes a control token."""
    ids: list[int] = []
    placed: list[Placed] = []
    for kind, run in groupby(pieces, key=type):
        if kind is str:
            ids += tokens.encode("".join(map(str, run)))
            continue
        for piece in run:
            if isinstance(piece, int):
                ids.append(piece)
            elif isinstance(piece, Picture):
                placed.append(place(ids, piece))
    return Prompt(ids, tuple(placed))
