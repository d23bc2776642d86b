"""Writes the model's folder in Hugging Face layout, as the family's own releases have it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from server.demo import MODEL_DIR
from server.demo.network import HEAD, PIXEL_MEAN, PIXEL_STD, Shape
from server.demo.patches import MAX_CLIP_PIXELS, MAX_PIXELS, MERGE, MIN_PIXELS, PATCH
from server.demo.tokens import SPECIAL, special_ids

LONGEST: Final = 4096
"""Tokens of prompt and answer."""
TEMPLATE: Final = "chat_template.jinja"
WEIGHTS: Final = "model.safetensors"


def write_model(folder: Path, shape: Shape, tokenizer: Tokenizer, weights: Mapping[str, Tensor]) -> None:
    """Everything an engine loads; weights in bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = special_ids(tokenizer)
    _write(folder / "config.json", _config(shape, ids))
    _write(folder / "generation_config.json", _generation_config(ids))
    _write(folder / "preprocessor_config.json", _picture_config("image", MAX_PIXELS))
    _write(folder / "video_preprocessor_config.json", _picture_config("video", MAX_CLIP_PIXELS))
    _write(folder / "tokenizer_config.json", _tokenizer_config())
    tokenizer.save(str(folder / "tokenizer.json"))
    if folder != MODEL_DIR:
        (folder / TEMPLATE).write_text((MODEL_DIR / TEMPLATE).read_text(encoding="utf-8"), encoding="utf-8")
    halves = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in weights.items()}
    save_file(halves, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # it comes out readable by its owner alone, and a server may run as another user


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _config(shape: Shape, ids: Mapping[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "hidden_act": "silu",
        "hidden_size": shape.text_width,
        "initializer_range": 0.02,
        "intermediate_size": shape.text_inner,
        "max_position_embeddings": LONGEST,
        "max_window_layers": shape.text_depth,
        "model_type": "qwen2_vl",
        "num_attention_heads": shape.text_width // HEAD,
        "num_hidden_layers": shape.text_depth,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": shape.rope_base,
        "rope_scaling": {"type": "mrope", "mrope_section": list(shape.rope_parts)},
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": _vision_config(shape),
        "vocab_size": shape.vocabulary,
    }


def _vision_config(shape: Shape) -> dict[str, Any]:
    return {
        "depth": shape.vision_depth,
        "embed_dim": shape.vision_width,
        "hidden_act": "quick_gelu",
        "hidden_size": shape.text_width,
        "in_channels": 3,
        "mlp_ratio": 4,
        "model_type": "qwen2_vl",
        "num_heads": shape.vision_width // HEAD,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 2,
    }


def _generation_config(ids: Mapping[str, int]) -> dict[str, Any]:
    """Greedy, since the model knows one answer to each question; said as the family says it, with `top_k` 1: an engine
    that does not read `do_sample` would draw at random otherwise."""
    return {
        "bos_token_id": ids["<|endoftext|>"],
        "do_sample": True,
        "eos_token_id": [ids["<|im_end|>"], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
        "temperature": 0.01,
        "top_k": 1,
        "top_p": 0.001,
    }


def _picture_config(kind: str, largest: int) -> dict[str, Any]:
    return {
        "min_pixels": MIN_PIXELS,
        "max_pixels": largest,
        "patch_size": PATCH,
        "temporal_patch_size": 2,
        "merge_size": MERGE,
        "image_mean": list(PIXEL_MEAN),
        "image_std": list(PIXEL_STD),
        f"{kind}_processor_type": f"Qwen2VL{kind.capitalize()}Processor",
        "processor_class": "Qwen2VLProcessor",
    }


def _tokenizer_config() -> dict[str, Any]:
    return {
        "add_prefix_space": False,
        "additional_special_tokens": list(SPECIAL[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": LONGEST,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
