"""Chat Completions on the wire.

An explicit `null` means "not given" everywhere. Unknown fields are kept in `model_extra`, where the translation finds
those that would change the answer and refuses them; the others are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag


class Wire(BaseModel):
    """Base of request types: strict about types as JSON has them, tolerant of fields nobody knows."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)


MAX_MESSAGES = 4096
MAX_PARTS = 2048
"""Of a request and of a message. Each costs validation on the event loop; no context holds more of any use."""

Pixels = Annotated[int, Field(ge=1, le=1 << 40, description="Pixels, as in qwen-vl-utils.")] | None


class PixelControls(Wire):
    """Per-picture size controls, named and meant as in qwen-vl-utils."""

    min_pixels: Pixels = None
    max_pixels: Pixels = None
    resized_height: Pixels = None
    resized_width: Pixels = None


class TextPart(Wire):
    """A piece of text."""

    type: Literal["text"]
    text: str


class ImageUrl(Wire):
    """Where a picture is: an http(s) URL or a data URL."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImageUrlPart(PixelControls):
    """A picture, as OpenAI's clients write it."""

    type: Literal["image_url"]
    image_url: ImageUrl


class ImagePart(PixelControls):
    """A picture, as qwen-vl-utils' users write it: `{"type": "image", "image": "data:image;base64,..."}`."""

    type: Literal["image"]
    image: str


class UnknownPart(Wire):
    """Any other kind of part; refused by the translation with a message that names the known kinds."""

    type: Any = None


PARTS = {"text": "part:text", "image_url": "part:image_url", "image": "part:image"}
"""Known content parts and their tags. The prefix keeps tags apart from field names in error locations."""


def _tag(value: Any) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return PARTS.get(kind, "part:unknown") if isinstance(kind, str) else "part:unknown"


ContentPart = Annotated[
    Annotated[TextPart, Tag("part:text")]
    | Annotated[ImageUrlPart, Tag("part:image_url")]
    | Annotated[ImagePart, Tag("part:image")]
    | Annotated[UnknownPart, Tag("part:unknown")],
    Discriminator(_tag),
]


def _as_parts(value: Any) -> Any:
    """A plain string is a single text part, so that there is one form to translate and one form of error paths."""
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


ContentParts = Annotated[list[ContentPart], Field(max_length=MAX_PARTS, fail_fast=True), BeforeValidator(_as_parts)]


class ChatMessage(Wire):
    """One turn of a conversation."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: ContentParts | None = None
    name: str | None = None


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Stops = Annotated[list[str], Field(fail_fast=True), BeforeValidator(_as_list)]


class StreamOptions(Wire):
    """Options of a streamed reply."""

    include_usage: bool | None = None


class ChatCompletionRequest(Wire):
    """The body of POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 20)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] | None = None
    stop: Stops | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
