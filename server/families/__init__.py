"""What differs between model families: placeholders, template, pixel limits; chosen by config.json's `model_type`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.families.family import Family, UnknownFamilyError
from server.families.own_processor import OwnProcessor
from server.families.qwen3_vl import Qwen3Vl
from server.families.qwen_vl import Qwen25Vl, QwenVl

REGISTRY: dict[str, Callable[[Path, dict[str, Any]], Family]] = {
    "qwen2_vl": QwenVl,
    "qwen2_5_vl": Qwen25Vl,
    "qwen3_vl": Qwen3Vl,
    "qwen3_vl_moe": Qwen3Vl,
}
"""Families by the `model_type` of their config.json."""


def load_family(folder: Path) -> Family:
    """Choose and set up the family of the model in `folder`; one of no known family is left to its own processor.

    Raises:
        UnknownFamilyError: the model cannot be shown pictures, or a file that it needs is missing or broken.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnknownFamilyError(f"{folder} holds no readable config.json with a model_type: {error}") from error
    if model_type not in REGISTRY and not config.get("vision_config"):
        raise UnknownFamilyError(
            f"Models of type {model_type!r} are not served: they cannot be shown pictures. "
            f"Known types: {', '.join(REGISTRY)}, and others with a vision_config."
        )
    return REGISTRY.get(model_type, OwnProcessor)(folder, config)
