"""The bytes that a token stands for, from the vocabulary's own spelling of it. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol

BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
"""A single byte in the vocabularies of SentencePiece."""
SPACE = "\u2581"
"""A space there."""


class Vocabulary(Protocol):
    """What is asked of a tokenizer of transformers."""

    added_tokens_decoder: Mapping[int, Any]
    backend_tokenizer: Any

    def convert_ids_to_tokens(self, ids: int) -> str | None:
        """A token as the vocabulary spells it; None for an id that no token has."""


class TokenBytes:
    """Tokens of one vocabulary. Of a letter in Arabic, two bytes, a token may hold one: texts cannot tell of that."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._added = {number: str(token.content) for number, token in vocabulary.added_tokens_decoder.items()}
        decoder = getattr(getattr(vocabulary, "backend_tokenizer", None), "decoder", None)
        self._is_byte_level = "ByteLevel" in repr(decoder)

    def of(self, token_id: int) -> bytes:
        """The bytes of a token; none for an id that no token has."""
        if token_id in self._added:
            return self._added[token_id].encode()
        piece = self._vocabulary.convert_ids_to_tokens(token_id)
        if piece is None:
            return b""
        if self._is_byte_level:
            return bytes(letters()[letter] for letter in piece)
        found = BYTE_PIECE.fullmatch(piece)
        return bytes.fromhex(found[1]) if found else piece.replace(SPACE, " ").encode()


@cache
def letters() -> Mapping[str, int]:
    """The letter that stands for each byte in byte-level vocabularies, backwards (`bytes_to_unicode` of GPT-2).

    Printable bytes of Latin-1 are themselves, the others follow from U+0100 on.
    """
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
