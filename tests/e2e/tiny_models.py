"""Models of several families in their real shape but a few thousand weights: files only, for processors and prompts.

All of them speak with the demo model's tokenizer, completed with the control tokens that their family needs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.model import FOLDER

TEXT = {
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 1024,
    "max_position_embeddings": 32768,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": True,
}
IDS = {
    "vision_start_token_id": 982,
    "vision_end_token_id": 983,
    "vision_token_id": 984,
    "image_token_id": 985,
    "video_token_id": 986,
}
VISION: dict[str, Any] = {
    "depth": 2,
    "num_heads": 2,
    "in_channels": 3,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
MROPE = {"type": "mrope", "mrope_section": [4, 6, 6]}
CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]
CUT = {"temporal_patch_size": 2, "merge_size": 2}

QWEN2_5_VL: dict[str, Any] = {
    "config": {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **TEXT,
        **IDS,
        "rope_scaling": MROPE,
        "vision_config": {
            **VISION,
            "hidden_size": 64,
            "out_hidden_size": 128,
            "intermediate_size": 96,
            "patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
            "hidden_act": "silu",
        },
    },
    "preprocessor_config": {
        **CUT,
        "size": {"shortest_edge": 3136, "longest_edge": 12845056},
        "patch_size": 14,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    },
    "video_preprocessor_config": {
        **CUT,
        "size": {"shortest_edge": 3136, "longest_edge": 768 * 28 * 28},
        "patch_size": 14,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "video_processor_type": "Qwen2VLVideoProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    },
}
QWEN2_VL: dict[str, Any] = {
    "config": {
        **QWEN2_5_VL["config"],
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "model_type": "qwen2_vl",
        "vision_config": {**VISION, "embed_dim": 64, "hidden_size": 128, "mlp_ratio": 2, "patch_size": 14},
    },
    **{
        name: {**QWEN2_5_VL[name], "processor_class": "Qwen2VLProcessor"}
        for name in ("preprocessor_config", "video_preprocessor_config")
    },
}
QWEN3_VL: dict[str, Any] = {
    "config": {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        **IDS,
        "tie_word_embeddings": True,
        "text_config": {
            **TEXT,
            "model_type": "qwen3_vl_text",
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"},
        },
        "vision_config": {
            **VISION,
            "model_type": "qwen3_vl",
            "depth": 3,
            "hidden_size": 64,
            "out_hidden_size": 128,
            "intermediate_size": 128,
            "patch_size": 16,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
            "hidden_act": "gelu_pytorch_tanh",
        },
    },
    "preprocessor_config": {
        **CUT,
        "size": {"shortest_edge": 65536, "longest_edge": 16777216},
        "patch_size": 16,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
    },
    "video_preprocessor_config": {
        **CUT,
        "size": {"shortest_edge": 4096, "longest_edge": 25165824},
        "patch_size": 16,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "video_processor_type": "Qwen3VLVideoProcessor",
        "processor_class": "Qwen3VLProcessor",
    },
}

INTERN_TOKENS = {"<img>": 987, "</img>": 988, "<IMG_CONTEXT>": 989, "<video>": 990}
INTERN_SIDE = 112
INTERN_PIXELS = {
    "size": {"height": INTERN_SIDE, "width": INTERN_SIDE},
    "do_resize": True,
    "do_normalize": True,
    "do_rescale": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "processor_class": "InternVLProcessor",
}
INTERN_TEMPLATE = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}\
{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}\
{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\\n' }}{% elif content['type'] == 'text' %}{{ content['text'] }}\
{% endif %}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
"""As in the InternVL checkpoints for transformers."""
INTERNVL: dict[str, Any] = {
    "config": {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "image_token_id": INTERN_TOKENS["<IMG_CONTEXT>"],
        "image_seq_length": 16,
        "downsample_ratio": 0.5,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": True,
        "text_config": {**TEXT, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
        "vision_config": {
            "model_type": "internvl_vision",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 128,
            "image_size": [INTERN_SIDE, INTERN_SIDE],
            "patch_size": [14, 14],
            "attention_bias": True,
        },
    },
    "preprocessor_config": {
        **INTERN_PIXELS,
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "crop_to_patches": True,
        "min_patches": 1,
        "max_patches": 12,
    },
    "video_preprocessor_config": {**INTERN_PIXELS, "video_processor_type": "InternVLVideoProcessor"},
    "processor_config": {"image_seq_length": 16, "processor_class": "InternVLProcessor"},
}


def write(folder: Path, model: dict[str, Any]) -> Path:
    """Write the files of one of the models above."""
    folder.mkdir(parents=True)
    for name, content in model.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    intern = model is INTERNVL
    tokenizer, settings = (
        json.loads((FOLDER / name).read_text(encoding="utf-8")) for name in ("tokenizer.json", "tokenizer_config.json")
    )
    template = (FOLDER / "chat_template.jinja").read_text(encoding="utf-8")
    if intern:
        template = INTERN_TEMPLATE
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        tokenizer["added_tokens"] += [{"id": id_, "content": name, **plain} for name, id_ in INTERN_TOKENS.items()]
        settings["extra_special_tokens"] = {
            "context_image_token": "<IMG_CONTEXT>",
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "video_token": "<video>",
        }
        settings.pop("additional_special_tokens")
    elif model is QWEN3_VL:
        # Its template has no system message of its own.
        start = template.index("{% if loop.first")
        end = template.index("{% endif %}", start) + len("{% endif %}")
        template = template[:start] + template[end:]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder
