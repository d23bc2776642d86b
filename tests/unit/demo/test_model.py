"""The shipped files fit together: tokenizer, configuration, weights, and the code that wrote them."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from server.demo import MODEL_DIR
from server.demo.patches import clip_patches, fit, image_patches, patch_places, smart_resize, token_places
from server.demo.tokens import SPECIAL, build_tokenizer, special_ids

MOST_BYTES = 13_000_000


def read(name: str) -> Any:
    return json.loads((MODEL_DIR / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL_DIR / "tokenizer.json"))


def test_the_tokenizer_is_the_one_the_code_builds(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab() == build_tokenizer().get_vocab()


@pytest.mark.parametrize("text", ["a red circle at the top left.", "دائرة حمراء في الوسط.", "née 好 \n\t x", "٣٥ ۰"])
def test_tokens_give_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize("word", ["circle", "helpful", "مدرسة", "دائرة", "Picture", "٤٠٧"])
def test_words_to_read_are_letters(tokenizer: Tokenizer, word: str) -> None:
    assert len(tokenizer.encode(word).ids) == len(word)


def test_words_of_sentences_are_whole(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(" circle at the top left").ids) == 5
    assert len(tokenizer.encode(" حمراء في أعلى اليسار").ids) == 4


def test_configuration_names_the_special_tokens(tokenizer: Tokenizer) -> None:
    config, ids = read("config.json"), special_ids(tokenizer)
    assert set(ids) == set(SPECIAL)
    assert config["image_token_id"] == ids["<|image_pad|>"]
    assert config["video_token_id"] == ids["<|video_pad|>"]
    assert config["eos_token_id"] == ids["<|im_end|>"]
    assert tokenizer.get_vocab_size() <= config["vocab_size"]


def test_weights_are_small_and_in_bfloat16() -> None:
    path = MODEL_DIR / "model.safetensors"
    assert path.stat().st_size <= MOST_BYTES
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__")
    assert {entry["dtype"] for entry in header.values()} == {"BF16"}
    config = read("config.json")
    assert header["model.embed_tokens.weight"]["shape"] == [config["vocab_size"], config["hidden_size"]]


def test_heads_have_a_size_the_engine_knows() -> None:
    config = read("config.json")
    assert config["hidden_size"] // config["num_attention_heads"] == 64
    assert config["vision_config"]["embed_dim"] // config["vision_config"]["num_heads"] == 64


@pytest.mark.parametrize(
    ("size", "expected"),
    [((56, 56), (56, 56)), ((30, 40), (56, 84)), ((1920, 1080), (588, 336)), ((100, 60), (112, 56))],
)
def test_pictures_are_scaled_as_the_preprocessor_does(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert smart_resize(size) == expected
    assert fit(Image.new("RGB", size)).size == expected


def test_patches_of_one_token_lie_side_by_side() -> None:
    pixels = np.zeros((28, 56, 3), np.uint8)
    pixels[14:, 28:42, 2] = 200  # blue, in the second token's lower left patch
    patches, grid = image_patches(Image.fromarray(pixels))
    assert grid == (1, 2, 4)
    assert patches.shape == (8, 3, 196)
    assert patches.any(axis=(1, 2)).tolist() == [False] * 6 + [True, False]
    assert patch_places(grid)[6].tolist() == [1, 2]
    assert token_places(grid).tolist() == [[0, 0], [0, 0], [0, 1]]


def test_an_odd_last_frame_is_repeated() -> None:
    frames = [Image.new("RGB", (28, 28), (level, 0, 0)) for level in (10, 20, 30)]
    patches, grid = clip_patches(frames)
    assert grid == (2, 2, 2)
    assert patches[:, 0, :, 0].tolist() == [[10, 20]] * 4 + [[30, 30]] * 4
