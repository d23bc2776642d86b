"""A request's life: ticket, pictures, prompt, engine, events. Knows no wire format.

Everything that can go wrong with a request goes wrong before `begin` returns: the first event of the engine has been
awaited by then, so that a reply with status 200 starts only when there is something to say.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, replace
from typing import Protocol

import anyio.to_thread

from server.admission.gate import Gate, Ticket
from server.core import (
    Caller,
    Clip,
    Conversation,
    DocumentSource,
    EngineState,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    MediaFact,
    Message,
    Opened,
    Picture,
    Placed,
    Prompt,
    Sampling,
    Source,
    TextDelta,
    Usage,
)
from server.engine.protocol import Engine
from server.errors import EngineNotReady, too_long
from server.families.family import Family

LONG_TEXT = 4096
"""Characters above which tokenising (about 1 us each) leaves the event loop for a worker thread."""
FRAME = 12
"""Characters as which the role of a message counts there."""


class Media(Protocol):
    """Fetches, decodes and cuts pictures, clips and documents."""

    def opened(self, sources: Sequence[Source], tenant: str) -> AbstractAsyncContextManager[list[Opened]]:
        """What the sources hold, in their order. Leaving the context gives back the memory that it counts."""


class EventStream:
    """The events of one request, the first already known. Owns the ticket: close it, whatever happens."""

    def __init__(
        self, first: Event, rest: AsyncGenerator[Event, None], ticket: Ticket, media: tuple[MediaFact, ...] = ()
    ) -> None:
        self.media = media
        """What became of the request's pictures, clips and pages, in reading order."""
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
    media: tuple[MediaFact, ...] = ()


class Inference:
    """Runs requests on one engine."""

    def __init__(
        self,
        *,
        engine: Engine,
        family: Family,
        media: Media,
        gate: Gate,
        default_max_tokens: int | None = None,
    ) -> None:
        self._engine = engine
        self._family = family
        self._media = media
        self._gate = gate
        self._default_max_tokens = default_max_tokens

    async def begin(self, conversation: Conversation, caller: Caller, *, streamed: bool = True) -> EventStream:
        """Admit a request, prepare it and await its first event. Cancelling this ends all of its work.

        Where the answer is not `streamed`, the engine may tell of many tokens at once.

        Raises:
            ApiError: Overloaded, EngineNotReady, InvalidImage, ContextLengthExceeded, or what the engine says.
        """
        ticket = self._gate.enter()
        try:
            self._require_ready()
            characters = text_length(conversation.messages)
            self._refuse_endless(characters)
            async with self._media.opened(conversation.sources, caller.tenant) as opened:
                prompt = await self._build_prompt(conversation.messages, opened, characters)
                facts = media_facts(opened, prompt.pictures)
                sampling = self._fit(conversation.sampling, prompt)
                request = GenerationRequest(conversation.request_id, prompt, sampling, caller.tenant, streamed)
                first, events = await self._start(request)
        except BaseException:
            ticket.close()
            raise
        return EventStream(first, events, ticket, facts)

    async def answer(self, conversation: Conversation, caller: Caller) -> Answer:
        """Run a request to its end and fold its events."""
        n = conversation.sampling.n
        stream = await self.begin(conversation, caller, streamed=False)
        del conversation  # with the pictures as they came: the answer may take minutes
        async with aclosing(stream):
            return await fold(stream, n)

    def _require_ready(self) -> None:
        if self._engine.state is not EngineState.READY:
            raise EngineNotReady(f"The engine is {self._engine.state.value}; please try again.")

    async def _build_prompt(self, messages: Sequence[Message], opened: Sequence[Opened], characters: int) -> Prompt:
        if characters + FRAME * len(messages) > LONG_TEXT:
            return await anyio.to_thread.run_sync(self._family.build_prompt, messages, opened)
        return self._family.build_prompt(messages, opened)

    async def _start(self, request: GenerationRequest) -> tuple[Event, AsyncGenerator[Event, None]]:
        """Hand a request to the engine and await its first event."""
        events = self._engine.generate(request)
        try:
            return await anext(events), events
        except BaseException:
            await events.aclose()
            raise

    def _refuse_endless(self, characters: int) -> None:
        """Refuse texts that cannot fit by far, before their pictures are fetched and their tokens counted."""
        least = self._family.tokens_at_least(characters)
        if least > self._engine.max_model_len:
            raise too_long(
                self._engine.max_model_len, f"your messages have more than {least} tokens", "Please shorten them."
            )

    def _fit(self, sampling: Sampling, prompt: Prompt) -> Sampling:
        """Settle max_tokens, or refuse what cannot fit into the model's context."""
        limit, used = self._engine.max_model_len, len(prompt.token_ids)
        room = limit - used
        if room < 1:
            advice = "Please shorten them, or give pictures a smaller max_pixels."
            raise too_long(limit, f"your messages have {used} tokens", advice)
        asked = sampling.max_tokens
        if asked is not None and asked > room:
            wanted = f"you requested {used + asked} tokens ({used} in the messages, {asked} in the completion)"
            raise too_long(limit, wanted, "Please reduce either.")
        return replace(sampling, max_tokens=asked or min(room, self._default_max_tokens or room))


def text_length(messages: Sequence[Message]) -> int:
    """Characters of text in all messages."""
    return sum(len(part) for message in messages for part in message.content if isinstance(part, str))


def media_facts(opened: Sequence[Opened], placed: Sequence[Placed]) -> tuple[MediaFact, ...]:
    """The small facts about pictures that are worth keeping longer than their patches; `placed` in the same order."""
    places = iter(placed)
    return tuple(_fact(one, picture, next(places).length) for one in opened for picture in one.pictures)


def _fact(opened: Opened, picture: Picture, tokens: int) -> MediaFact:
    fact = MediaFact(
        param=opened.source.param,
        kind="page" if isinstance(opened.source, DocumentSource) else "image",
        original_size=picture.original_size,
        resized_size=picture.resized_size,
        tokens=tokens,
        page=picture.page,
    )
    return replace(fact, kind="video", frames=picture.frames, fps=picture.fps) if isinstance(picture, Clip) else fact


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
    return Answer(tuple(choices), usage, stream.media)
