"""The bytes of a token, by its spelling in the vocabulary."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer

from server.engine.token_bytes import TokenBytes, letters
from tests.model import FOLDER


class Vocabulary:
    """A tokenizer, as far as it is asked."""

    def __init__(self, tokenizer: Any, pieces: list[str] | None = None, added: dict[int, str] | None = None) -> None:
        self.backend_tokenizer = tokenizer
        self.added_tokens_decoder = {number: SimpleNamespace(content=name) for number, name in (added or {}).items()}
        self._pieces = pieces

    def convert_ids_to_tokens(self, ids: int) -> str | None:
        if self._pieces is not None:
            return self._pieces[ids] if ids < len(self._pieces) else None
        piece: str | None = self.backend_tokenizer.id_to_token(ids)
        return piece


@pytest.mark.parametrize("text", ["مرحبا بالعالم", "Hello, world!\n", "日本 é 🙂", "\x00\x7f\xad"])
def test_the_bytes_of_a_texts_tokens_are_the_text(text: str) -> None:
    tokenizer = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    made = TokenBytes(Vocabulary(tokenizer))
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert b"".join(map(made.of, ids)).decode() == text


def test_every_byte_has_a_letter_of_its_own() -> None:
    assert sorted(letters().values()) == list(range(256))


def test_spellings_of_sentencepiece() -> None:
    pieces = ["<0xD9>", "\u2581word", "<s>"]
    made = TokenBytes(Vocabulary(SimpleNamespace(decoder="Sequence()"), pieces, {2: "<s>"}))
    assert [made.of(number) for number in range(4)] == [b"\xd9", b" word", b"<s>", b""]
