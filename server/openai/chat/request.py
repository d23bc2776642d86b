"""A Chat Completions body to a Conversation: what cannot be honoured is refused, never silently dropped."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator

from server.core import Conversation, Message, Role, Sampling, Source
from server.errors import BadRequest, UnsupportedParameter
from server.openai.chat.body import ChatCompletionRequest, ChatMessage
from server.openai.chat.parameters import judge
from server.openai.constraints import constraint_of
from server.openai.media.content import (
    PARTS,
    ContentPart,
    FilePart,
    ImagePart,
    ImageUrlPart,
    RefusalPart,
    TextPart,
    VideoPart,
    VideoUrlPart,
)
from server.openai.media.defaults import MediaDefaults
from server.openai.media.parts import LOW_DETAIL_PIXELS, Find, MediaParts
from server.openai.parse import missing

ROLES: dict[str, Role] = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}

FLEX = "flex"
"""OpenAI's service tier for work that can wait."""
MAX_STOPS = 4
MAX_TOKEN_ID_DIGITS = 10
MAX_STOP_CHARACTERS = 1024


def to_conversation(
    body: ChatCompletionRequest,
    find: Find,
    request_id: str,
    max_choices: int,
    low_pixels: int = LOW_DETAIL_PIXELS,
    template_words: Collection[str] = (),
) -> Conversation:
    """Translate a validated body; `low_pixels` is the most that a picture with low detail may have.

    `find` gives back what was kept apart of the body for a string of it that names media. `template_words` are those in
    the model's chat template. What has no effect is in the conversation's `ignored`.

    Raises:
        BadRequest: what pydantic cannot judge; `param` names the field.
        UnsupportedParameter: a field that would change the answer and is not offered.
    """
    ignored = judge(body, template_words)
    if body.stream_options is not None and body.stream_options.include_usage and not body.stream:
        raise BadRequest("'stream_options' is only allowed when 'stream' is true.", param="stream_options")
    if body.n is not None and body.n > max_choices:
        raise BadRequest(f"Invalid 'n': this server allows at most {max_choices} choices.", param="n")
    media = MediaParts(MediaDefaults(body.mm_processor_kwargs, body.media_io_kwargs), low_pixels, find)
    messages = tuple(_message(message, f"messages[{index}]", media) for index, message in enumerate(body.messages))
    return Conversation(
        request_id,
        messages,
        _sampling(body),
        priority=body.priority or 0,
        flex=body.service_tier == FLEX,
        ignored=ignored,
    )


def _message(message: ChatMessage, where: str, media: MediaParts) -> Message:
    if message.role not in ROLES:
        raise UnsupportedParameter(f"Messages with role '{message.role}' are not supported.", param=f"{where}.role")
    if message.refusal and message.role != "assistant":
        raise UnsupportedParameter(
            f"'{where}.refusal' is not supported by this server: only an assistant refuses.", param=f"{where}.refusal"
        )
    if message.content is None and message.role != "assistant":
        raise missing(f"{where}.content")
    said = tuple(_parts(message.content or [], f"{where}.content", media))
    return Message(ROLES[message.role], (*said, message.refusal) if message.refusal else said)


def _parts(parts: list[ContentPart], where: str, media: MediaParts) -> Iterator[str | Source]:
    for index, part in enumerate(parts):
        here = f"{where}[{index}]"
        match part:
            case TextPart():
                yield part.text
            case RefusalPart():
                yield part.refusal
            case ImageUrlPart() | ImagePart():
                yield media.picture(part, here)
            case VideoUrlPart() | VideoPart():
                yield media.clip(part, here)
            case FilePart():
                yield media.document(part, here)
            case _:
                known = ", ".join(f"'{name}'" for name in PARTS)
                raise BadRequest(
                    f"Invalid '{here}.type': the supported content parts are {known}.", param=f"{here}.type"
                )


def _sampling(body: ChatCompletionRequest) -> Sampling:
    # The least nucleus holds one token, the likeliest; the engine takes no nucleus of nothing.
    only_likeliest = body.top_p == 0
    return Sampling(
        max_tokens=body.max_completion_tokens or body.max_tokens,
        temperature=body.temperature,
        top_p=None if only_likeliest else body.top_p,
        top_k=1 if only_likeliest else body.top_k,
        min_p=body.min_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        stop=_stops(body.stop or []),
        seed=body.seed,
        n=body.n or 1,
        min_tokens=_min_tokens(body),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        keep_stop=bool(body.include_stop_str_in_output),
        bad_words=tuple(unicodedata.normalize("NFC", word) for word in body.bad_words or ()),
        logit_bias=_logit_bias(body.logit_bias or {}),
        logprobs=_logprobs(body),
        constraint=constraint_of(body),
    )


def _min_tokens(body: ChatCompletionRequest) -> int:
    least, most = body.min_tokens or 0, body.max_completion_tokens or body.max_tokens
    if most is not None and least > most:
        raise BadRequest("'min_tokens' is larger than the most tokens that the answer may have.", param="min_tokens")
    return least


def _logit_bias(bias: dict[str, float]) -> tuple[tuple[int, float], ...]:
    for token_id in bias:
        if not (token_id.isascii() and token_id.isdecimal() and len(token_id) < MAX_TOKEN_ID_DIGITS):
            raise BadRequest("Invalid 'logit_bias': its keys are token ids.", param="logit_bias")
    return tuple((int(token_id), added) for token_id, added in bias.items())


def _logprobs(body: ChatCompletionRequest) -> int | None:
    if body.top_logprobs and not body.logprobs:
        raise BadRequest("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def _stops(stops: list[str]) -> tuple[str, ...]:
    """Stop strings in NFC, the form in which the model writes Arabic with marks."""
    if len(stops) > MAX_STOPS:
        raise BadRequest(f"Invalid 'stop': at most {MAX_STOPS} stop strings are allowed.", param="stop")
    for index, stop in enumerate(stops):
        if not stop or len(stop) > MAX_STOP_CHARACTERS:
            raise BadRequest(
                f"Invalid 'stop[{index}]': a stop string has 1 to {MAX_STOP_CHARACTERS} characters.",
                param=f"stop[{index}]",
            )
    return tuple(unicodedata.normalize("NFC", stop) for stop in stops)
