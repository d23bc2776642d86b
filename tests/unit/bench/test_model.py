"""The light model: what it says, worked out from its weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from clients.bench.model import CAPPED_PIXELS, FULL_PIXELS, make_model, weights, words_of


def said(embeddings: np.ndarray, head: np.ndarray, token: int, count: int) -> list[int]:
    """Greedy answers: with layers that add nothing, the head meets the embedding of the last token."""
    answer = []
    for _ in range(count):
        token = int(np.argmax(head @ embeddings[token]))
        answer.append(token)
    return answer


def test_only_words_are_said() -> None:
    vocabulary = {"a": 0, "Ġthe": 1, "Ġin": 2, "Ġ3rd": 3, "word": 4, "Ġread": 5, "ĠÙĪØ": 6, "Ġpage": 7}
    assert words_of(vocabulary) == [1, 5, 7]


def test_the_answer_goes_round_its_words_wherever_it_begins() -> None:
    words = [*range(3, 60, 2), 61, 62]
    made = weights(words, 64)
    for token in range(64):
        answer = said(made["model.embed_tokens.weight"], made["lm_head.weight"], token, 40)
        begun = words.index(answer[0])
        assert answer == [words[(begun + step) % len(words)] for step in range(40)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models"), FULL_PIXELS)


def test_no_control_token_is_ever_said(folder: Path) -> None:
    made = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    control = {config[name] for name in ("eos_token_id", "bos_token_id", "image_token_id")}
    for token in control:
        answer = said(made["model.embed_tokens.weight"], made["lm_head.weight"], token, 200)
        assert len(set(answer)) > 100
        assert not control & set(answer)


def test_the_folder_is_made_once_for_each_limit(folder: Path) -> None:
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert make_model(folder.parent, FULL_PIXELS) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    other = make_model(folder.parent, CAPPED_PIXELS)
    limits = [json.loads((made / "preprocessor_config.json").read_text())["max_pixels"] for made in (folder, other)]
    assert limits == [FULL_PIXELS, CAPPED_PIXELS]
