"""Models on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel


class Model(BaseModel):
    """A model that this server answers for."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "vllm"
    """What gateways recognise a vLLM worker by."""
    max_model_len: int | None = None


class ModelList(BaseModel):
    """The reply of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[Model]
