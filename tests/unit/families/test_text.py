"""The tokenizer split in two: plain texts, and control tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from server.families.text import Tokens
from tests.model import FOLDER

TOKENS = Tokens(FOLDER)
WHOLE = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
DOCUMENT: dict[str, Any] = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
CONTROLS: dict[str, int] = {token["content"]: token["id"] for token in DOCUMENT["added_tokens"]}


def test_the_models_own_words_are_split_at_control_tokens() -> None:
    start, end = CONTROLS["<|im_start|>"], CONTROLS["<|im_end|>"]
    assert TOKENS.split("<|im_start|>user\nHello<|im_end|><|im_end|>\n") == [start, "user\nHello", end, end, "\n"]
    assert TOKENS.split("no control <|im_start token") == ["no control <|im_start token"]
    assert TOKENS.split("") == []


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*CONTROLS, "user\n", "مرحبا", " ", "<|", "|>"]), max_size=8).map("".join))
def test_split_and_encoded_is_what_the_whole_tokenizer_makes(text: str) -> None:
    ids: list[int] = []
    for piece in TOKENS.split(text):
        ids += TOKENS.encode(piece) if isinstance(piece, str) else [piece]
    assert ids == WHOLE.encode(text, add_special_tokens=False).ids


def with_tokenizer(folder: Path, **changes: Any) -> Tokens:
    document = {**DOCUMENT, **changes}
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    return Tokens(folder)


def test_of_two_control_tokens_that_begin_alike_the_longer_is_meant(tmp_path: Path) -> None:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": 979 + number, "content": name, **plain} for number, name in enumerate(["<a>", "<a><b>", "<b>"])]
    assert with_tokenizer(tmp_path, added_tokens=added).split("<a><b><b><a>") == [980, 981, 979]


def test_a_tokenizer_without_control_tokens_splits_nothing(tmp_path: Path) -> None:
    assert with_tokenizer(tmp_path, added_tokens=[]).split("<|im_start|>") == ["<|im_start|>"]


BPE = {"type": "BPE", "vocab": {"a": 0, "abcd": 1}, "merges": [], "fuse_unk": False, "byte_fallback": False}
UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["abcd", -1.0]], "byte_fallback": False}
WORDS = {
    "type": "WordPiece",
    "vocab": {"a": 0, "abcd": 1},
    "unk_token": "a",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}


@pytest.mark.parametrize(
    ("model", "least"),
    [
        (BPE, 1000),
        (BPE | {"fuse_unk": True, "unk_token": "a"}, 0),
        (BPE | {"fuse_unk": True, "unk_token": "a", "byte_fallback": True}, 1000),
        (UNIGRAM, 0),
        (UNIGRAM | {"byte_fallback": True}, 1000),
        (WORDS, 0),
    ],
    ids=["bytes", "fused", "fallback", "unigram", "unigram fallback", "words"],
)
def test_a_lower_bound_is_given_only_where_no_stretch_of_letters_is_one_token(
    tmp_path: Path, model: dict[str, Any], least: int
) -> None:
    assert with_tokenizer(tmp_path, model=model, added_tokens=[]).at_least(12_000) == least


SAID = st.sampled_from(["7", "word ", "مرحبا ", "  ", "\n", "!?", "日本", "e\u0301", "\t", "don't "])


@settings(max_examples=40, deadline=None)
@given(st.lists(SAID, min_size=1, max_size=4), st.integers(0, 2000))
def test_a_long_texts_beginning_never_promises_more_tokens_than_it_has(said: list[str], most: int) -> None:
    text = "".join(said) * (40_000 // len("".join(said)))
    assert TOKENS.more_than(text, most) <= len(TOKENS.encode(text))


@pytest.mark.parametrize(
    "said", ["7", "word ", "مرحبا بالعالم ", "م", " \n"], ids=["digits", "words", "Arabic", "one word", "white space"]
)
def test_a_text_that_is_far_too_long_is_known_by_its_beginning(said: str) -> None:
    text = said * (4_000_000 // len(said))
    looked_at: list[int] = []
    tokens = Tokens(FOLDER)
    encode = tokens._plain.encode_batch

    class Watched:
        def encode_batch(self, texts: list[str], **options: Any) -> Any:
            looked_at.extend(map(len, texts))
            return encode(texts, **options)

    tokens._plain = Watched()  # type: ignore[assignment]
    assert tokens.more_than(text, 1000) > 1000
    assert sum(looked_at) < 200_000


def test_nothing_is_known_early_where_a_stretch_of_letters_may_be_one_token(tmp_path: Path) -> None:
    model = BPE | {"fuse_unk": True, "unk_token": "a"}
    assert with_tokenizer(tmp_path, model=model, added_tokens=[]).more_than("7" * 100_000, 100) == 0
