"""A model that weighs nothing: what a bench of front ends asks both servers to serve.

The engine shares the machine's cores with the front ends, so it must cost next to nothing. This one has AIN's
architecture, the demo model's tokenizer and template, one thin layer of text and no layer in its vision tower: a page
of 11,125 tokens is read in well under a second, where the demo model would take a minute. It sees nothing, and answers
every question with the same round of words, which never ends by itself: two servers that were asked the same must say
the same.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

DEMO = Path(__file__).parents[2] / "server" / "demo" / "model"
COPIED = ("chat_template.jinja", "generation_config.json", "tokenizer.json", "video_preprocessor_config.json")
CAPPED_PIXELS = 200_704
"""256 tokens: the cap that the demo model comes with, too."""
FULL_PIXELS = 12_845_056
"""AIN's own limit, 16,384 tokens: an A4 scan at 300 dots an inch is prepared at its full size, 11,125 tokens."""
CONTEXT = 32_768

HIDDEN = 64
HEAD = 32
"""The smallest head that vLLM's CPU attention takes."""
VISION = 16
MERGED = 4 * VISION
PATCH = (3, 2, 14, 14)
FORMAT = 1
"""Enters the folder's name. Change it whenever the same arguments would give other files."""


def make_model(parent: Path, max_pixels: int) -> Path:
    """The folder of the model whose pictures have at most `max_pixels` pixels; made once."""
    folder = parent / f"light-{FORMAT}-{max_pixels}"
    if (folder / "model.safetensors").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in COPIED:
        shutil.copyfile(DEMO / name, folder / name)
    config = _read("config.json")
    _write(folder / "config.json", {**config, **_shape(config["vision_config"])})
    _write(folder / "tokenizer_config.json", {**_read("tokenizer_config.json"), "model_max_length": CONTEXT})
    _write(folder / "preprocessor_config.json", {**_read("preprocessor_config.json"), "max_pixels": max_pixels})
    vocabulary: dict[str, int] = _read("tokenizer.json")["model"]["vocab"]
    save_file(weights(words_of(vocabulary), config["vocab_size"]), folder / "model.safetensors", {"format": "pt"})
    return folder


def words_of(vocabulary: dict[str, int]) -> list[int]:
    """The tokens of a space and at least three plain Latin letters: words and beginnings of words."""
    marked = (token for token in vocabulary if token[0] == "Ġ" and len(token) > 3)  # Ġ: the space in such vocabularies
    return sorted(vocabulary[token] for token in marked if token[1:].isascii() and token[1:].isalpha())


def weights(words: list[int], size: int) -> dict[str, NDArray[np.float32]]:
    """A model of `size` tokens that says `words` in turn.

    Every layer adds nothing to a token's embedding, and the head of each word is the embedding of the word before it.
    All other tokens have no head: whatever the prompt ends with leads to some word, and is never said itself.
    """
    embeddings = np.random.default_rng(0).standard_normal((size, HIDDEN)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    head = np.zeros_like(embeddings)
    head[words[1:] + words[:1]] = embeddings[words]
    layer, shapes = "model.layers.0", dict(VISION_SHAPES)
    for name, rows in (("q", HIDDEN), ("k", HEAD), ("v", HEAD)):
        shapes[f"{layer}.self_attn.{name}_proj.weight"] = (rows, HIDDEN)
        shapes[f"{layer}.self_attn.{name}_proj.bias"] = (rows,)
    for name in ("self_attn.o", "mlp.gate", "mlp.up", "mlp.down"):
        shapes[f"{layer}.{name}_proj.weight"] = (HIDDEN, HIDDEN)
    norms = (f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm", "model.norm")
    return {
        "model.embed_tokens.weight": embeddings,
        "lm_head.weight": head,
        **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()},
        **{f"{name}.weight": np.ones(HIDDEN, np.float32) for name in norms},
    }


VISION_SHAPES: dict[str, tuple[int, ...]] = {
    "visual.patch_embed.proj.weight": (VISION, *PATCH),
    "visual.merger.ln_q.weight": (VISION,),
    "visual.merger.ln_q.bias": (VISION,),
    "visual.merger.mlp.0.weight": (MERGED, MERGED),
    "visual.merger.mlp.0.bias": (MERGED,),
    "visual.merger.mlp.2.weight": (HIDDEN, MERGED),
    "visual.merger.mlp.2.bias": (HIDDEN,),
}


def _shape(vision: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "max_position_embeddings": CONTEXT,
        "max_window_layers": 1,
        "num_attention_heads": HIDDEN // HEAD,
        "num_hidden_layers": 1,
        "num_key_value_heads": 1,
        "rope_scaling": {"type": "mrope", "mrope_section": [4, 6, 6]},
        "tie_word_embeddings": False,
        "vision_config": {**vision, "depth": 0, "embed_dim": VISION, "hidden_size": HIDDEN, "num_heads": 1},
    }


def _read(name: str) -> Any:
    return json.loads((DEMO / name).read_text(encoding="utf-8"))


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
