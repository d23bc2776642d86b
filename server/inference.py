"""A request's life: ticket, pictures, prompt, engine, events. Knows no wire format.

Everything that can go wrong with a request goes wrong before `begin` returns: the first event of the engine has been
awaited by then, so that a reply with status 200 starts only when there is something to say.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

import anyio.to_thread

from server.admission.gate import Gate, Ticket
from server.core import (
    Caller,
    Conversation,
    EngineState,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Message,
    Picture,
    PictureSource,
    Prompt,
    Sampling,
    TextDelta,
    Usage,
)
from server.engine.protocol import Engine
from server.errors import ContextLengthExceeded, EngineNotReady
from server.families.family import Family

LONG_TEXT = 4096
"""Characters above which tokenising (about 1 us each) leaves the event loop for a worker thread."""
FRAME = 12
"""Characters as which the role of a message counts there."""


class Pictures(Protocol):
    """Fetches, decodes and cuts pictures, in order."""

    async def prepare(self, sources: Sequence[PictureSource], tenant: str) -> list[Picture]: ...


class EventStream:
    """The events of one request, the first already known. Owns the ticket: close it, whatever happens."""

    def __init__(self, first: Event, rest: AsyncGenerator[Event, None], ticket: Ticket) -> None:
        self._first: Event | None = first
        self._rest = rest
        self._ticket = ticket

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        if self._first is not None:
            event, self._first = self._first, None
            return event
        return await anext(self._rest)

    async def aclose(self) -> None:
        """Stop the engine's work on this request and give the ticket back."""
        try:
            await self._rest.aclose()
        finally:
            self._ticket.close()


@dataclass(slots=True)
class Choice:
    """A finished choice, folded from its events."""

    text: str = ""
    reason: FinishReason = FinishReason.STOP


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply, folded from its events."""

    choices: tuple[Choice, ...]
    usage: Usage


class Inference:
    """Runs requests on one engine."""

    def __init__(
        self,
        *,
        engine: Engine,
        family: Family,
        pictures: Pictures,
        gate: Gate,
        default_max_tokens: int | None = None,
    ) -> None:
        self._engine = engine
        self._family = family
        self._pictures = pictures
        self._gate = gate
        self._default_max_tokens = default_max_tokens

    async def begin(self, conversation: Conversation, caller: Caller) -> EventStream:
        """Admit a request, prepare it and await its first event. Cancelling this ends all of its work.

        Raises:
            ApiError: Overloaded, EngineNotReady, InvalidImage, ContextLengthExceeded, or what the engine says.
        """
        ticket = self._gate.enter()
        try:
            self._require_ready()
            request = await self._prepare(conversation, caller)
            events = self._engine.generate(request)
            try:
                first = await anext(events)
            except BaseException:
                await events.aclose()
                raise
        except BaseException:
            ticket.close()
            raise
        return EventStream(first, events, ticket)

    async def answer(self, conversation: Conversation, caller: Caller) -> Answer:
        """Run a request to its end and fold its events."""
        async with aclosing(await self.begin(conversation, caller)) as stream:
            return await fold(stream, conversation.sampling.n)

    def _require_ready(self) -> None:
        if self._engine.state is not EngineState.READY:
            raise EngineNotReady(f"The engine is {self._engine.state.value}; please try again.")

    async def _prepare(self, conversation: Conversation, caller: Caller) -> GenerationRequest:
        characters = text_length(conversation.messages)
        self._refuse_endless(characters)
        sources = conversation.pictures
        pictures = await self._pictures.prepare(sources, caller.tenant) if sources else []
        if characters + FRAME * len(conversation.messages) > LONG_TEXT:
            prompt = await anyio.to_thread.run_sync(self._family.build_prompt, conversation.messages, pictures)
        else:
            prompt = self._family.build_prompt(conversation.messages, pictures)
        sampling = self._fit(conversation.sampling, prompt)
        return GenerationRequest(conversation.request_id, prompt, sampling, caller.tenant)

    def _refuse_endless(self, characters: int) -> None:
        """Refuse texts that cannot fit by far, before their pictures are fetched and their tokens counted."""
        least = self._family.tokens_at_least(characters)
        if least > self._engine.max_model_len:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self._engine.max_model_len} tokens. However, your messages "
                f"have more than {least} tokens. Please shorten them. (context_length_exceeded)",
                param="messages",
            )

    def _fit(self, sampling: Sampling, prompt: Prompt) -> Sampling:
        """Settle max_tokens, or refuse what cannot fit into the model's context."""
        limit, used = self._engine.max_model_len, len(prompt.token_ids)
        room = limit - used
        if room < 1:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {limit} tokens. However, your messages have {used} tokens. "
                "Please shorten them, or give pictures a smaller max_pixels. (context_length_exceeded)",
                param="messages",
            )
        asked = sampling.max_tokens
        if asked is not None and asked > room:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {limit} tokens. However, you requested {used + asked} tokens "
                f"({used} in the messages, {asked} in the completion). Please reduce either. "
                "(context_length_exceeded)",
                param="messages",
            )
        return replace(sampling, max_tokens=asked or min(room, self._default_max_tokens or room))


def text_length(messages: Sequence[Message]) -> int:
    """Characters of text in all messages."""
    return sum(len(part) for message in messages for part in message.content if isinstance(part, str))


async def fold(stream: EventStream, n: int) -> Answer:
    """Gather a stream's events into one answer with `n` choices."""
    texts: list[list[str]] = [[] for _ in range(n)]
    choices = [Choice() for _ in range(n)]
    usage = Usage(0, 0)
    async for event in stream:
        match event:
            case TextDelta(index, text):
                texts[index].append(text)
            case Finished(index, reason):
                choices[index].reason = reason
            case Usage():
                usage = event
    for choice, parts in zip(choices, texts, strict=True):
        choice.text = "".join(parts)
    return Answer(tuple(choices), usage)
