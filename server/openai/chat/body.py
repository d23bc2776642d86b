"""Chat Completions on the wire.

An explicit `null` means "not given" everywhere. Fields that are not here are kept in `model_extra`, at every level;
server/openai/chat/parameters.py says what becomes of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from server.openai.media.content import ContentParts
from server.openai.media.kwargs import MediaIoKwargs, MmProcessorKwargs
from server.openai.response_format import Choices, Grammar, ResponseFormat, Schema, StructuredOutputs
from server.openai.wire import Integral, Lenient, Wire

MAX_MESSAGES = 4096
"""Of a request. Each costs validation on the event loop; no context holds more of any use."""


class ChatMessage(Wire):
    """One turn of a conversation."""

    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: ContentParts | None = None
    name: str | None = Field(None, description="Has no effect, and the reply says so.")
    refusal: str | None = Field(None, description="Of the assistant alone: what it said instead of an answer.")


def _as_list(value: Any) -> Any:
    return ([value] if value else []) if isinstance(value, str) else value


Stops = Annotated[list[str], Field(fail_fast=True), BeforeValidator(_as_list)]


BadWord = Annotated[str, Field(min_length=1, max_length=128)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]


class StreamOptions(Wire):
    """Options of a streamed reply."""

    include_usage: bool | None = None


class ChatCompletionRequest(Wire):
    """The body of POST /v1/chat/completions."""

    model: str | None = Field(None, description="The one that is served, if it is not named.")
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=1 << 31), Integral] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1 << 31), Integral] | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=1 << 20), Integral] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2, allow_inf_nan=False)] | None = None
    stop: Stops | None = None
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1), Integral] | None = None
    n: Annotated[int, Field(ge=1, le=128), Integral] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=1 << 31)] | None = Field(
        None, description="Before so many the answer does not end by itself, as in vLLM."
    )
    stop_token_ids: Annotated[list[TokenId], Field(max_length=128, fail_fast=True)] | None = Field(
        None, description="Token ids that end the answer, as in vLLM."
    )
    include_stop_str_in_output: bool | None = Field(
        None, description="Whether the stop string that ended the answer is part of it, as in vLLM."
    )
    bad_words: Annotated[list[BadWord], Field(max_length=64, fail_fast=True)] | None = Field(
        None, description="What the answer must not say, as in vLLM."
    )
    logit_bias: Annotated[dict[str, Bias], Field(max_length=1024)] | None = Field(
        None, description="Token ids, and what is added to their logits."
    )
    logprobs: bool | None = Field(
        None, description="Tell how likely each token of the answer was, before temperature and penalties."
    )
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(
        None, description="How many of the likeliest tokens are told at each place; with `logprobs` only."
    )
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = Field(None, description="Another name of structured_outputs.json, and so on.")
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: Grammar | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    service_tier: str | None = Field(
        None, description="`flex` lets all requests pass that are not; every other value is served alike."
    )
    priority: Annotated[int, Field(ge=-(1 << 31), lt=1 << 31), Integral] | None = Field(
        None, description="Orders the requests of the same key that wait for their turn: lower goes first."
    )
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False), Lenient] | None = Field(
        None, description="Seconds after which the answer is of no use; the server may allow less."
    )
    mm_processor_kwargs: MmProcessorKwargs | None = Field(
        None, description="Sizes and frames for all media of this request that name none themselves, as in vLLM."
    )
    media_io_kwargs: MediaIoKwargs | None = Field(
        None, description="How media of this request are decoded that say nothing themselves, as in vLLM."
    )
    return_media_info: bool | None = Field(
        None,
        description="Tell in `media_info` (of the reply, or of the first chunk) what became of each picture, clip and "
        "page: its sizes in pixels and its tokens, and of a clip its frames.",
    )
