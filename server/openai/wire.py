"""What all request types have in common."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field


class Wire(BaseModel):
    """Base of request types: strict about types as JSON has them, tolerant of fields nobody knows."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: Any) -> Any:
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return _whole(float(value)) if "." in value else int(value)
    return _whole(value)


def _unless_empty(value: Any) -> Any:
    return None if value == "" else value


Integral = BeforeValidator(_whole)
"""For whole numbers: many languages, JavaScript's among their libraries, write 7 as 7.0."""
Lenient = BeforeValidator(_number)
"""For our own controls, which no SDK has types for: forms and shells send numbers as strings."""
EmptyIsNothing = BeforeValidator(_unless_empty)

Pixels = Annotated[int, Field(ge=1, le=1 << 40), Lenient]
Frames = Annotated[int, Field(ge=1, le=1 << 20), Lenient]
FramesASecond = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False), Lenient]
Seconds = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False), Lenient]
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
