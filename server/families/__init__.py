"""What differs between model families: placeholders, template, pixel limits; chosen by config.json's `model_type`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from server.families.family import Family, UnknownFamilyError
from server.families.qwen_vl import QwenVl

REGISTRY: dict[str, Callable[[Path, dict[str, Any]], Family]] = {
    "qwen2_vl": QwenVl,
    "qwen2_5_vl": QwenVl,
}
"""Families by the `model_type` of their config.json."""


def load_family(folder: Path) -> Family:
    """Choose and set up the family of the model in `folder`.

    Raises:
        UnknownFamilyError: the model is of no family in REGISTRY, or a file that it needs is missing or broken.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnknownFamilyError(f"{folder} holds no readable config.json with a model_type: {error}") from error
    if model_type not in REGISTRY:
        raise UnknownFamilyError(f"Models of type {model_type!r} are not served; known types: {', '.join(REGISTRY)}.")
    return REGISTRY[model_type](folder, config)
