"""What all request types have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field


class Wire(BaseModel):
    """Base of request types: strict about types as JSON has them, tolerant of fields nobody knows."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


Pixels = Annotated[int, Field(ge=1, le=1 << 40)]
Frames = Annotated[int, Field(ge=1, le=1 << 20)]
FramesASecond = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
"""Bounds of sense. What a server allows is for its operator to say, and judged where files are opened."""

TAG = "part:"
"""How tags of unions begin. Pydantic writes tags into the paths of errors; this tells them from the names of fields."""
FORMS: dict[type, str] = {str: TAG + "text", int: TAG + "number", list: TAG + "list", dict: TAG + "object"}


def form_of(*known: str) -> Discriminator:
    """Chooses by JSON's types between the forms that a field may have; a value of none is refused as the first."""

    def form(value: Any) -> str:
        name = FORMS.get(type(value), known[0])
        return name if name in known else known[0]

    return Discriminator(form)
