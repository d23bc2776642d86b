"""A request's life: ticket, pictures, prompt, engine, events. Knows no wire format.

Whoever runs a request sets its deadline by cancelling it: all work on it ends then.

Everything that can go wrong with a request goes wrong before `begin` returns: the first event of the engine has been
awaited by then, so that a reply with status 200 starts only when there is something to say.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import Protocol

import anyio
import anyio.to_thread

from server.admission.gate import Gate, Ticket
from server.admission.queue import AdmissionRequest
from server.core import (
    Answer,
    Caller,
    Choice,
    Clip,
    Conversation,
    EngineState,
    Event,
    Finished,
    GenerationRequest,
    MediaFact,
    Message,
    Opened,
    Picture,
    Placeholder,
    Prompt,
    Restarted,
    Sampling,
    Source,
    TextDelta,
    TokenLogprob,
    Usage,
)
from server.engine.protocol import Generator
from server.errors import EngineNotReady, surely_too_long, too_long
from server.families.family import Family
from server.telemetry import traces

LONG_TEXT = 4096
"""Characters above which tokenising (about 1 us each) leaves the event loop for a worker thread."""
TOKENISING_THREADS = 2
"""At once, over all requests: with more of them than cores the event loop would wait for its turn."""
ROLE_CHARACTERS = 12
"""Characters as which the role of a message counts there."""
CHARACTERS_PER_TOKEN = 3
"""About, in Arabic and English, where the tokens have not been counted yet."""
FRAME_TOKENS = 5
"""Around each message."""


class Media(Protocol):
    """Fetches, decodes and cuts pictures, clips and documents."""

    def opened(self, sources: Sequence[Source], tenant: str) -> AbstractAsyncContextManager[list[Opened]]:
        """What the sources hold, in their order. Leaving the context gives back the memory that it counts."""

    def estimated_tokens(self, sources: Sequence[Source]) -> int:
        """How many prompt tokens they will take, guessed in no time."""


class EventStream:
    """The events of one request, the first already known. Owns the ticket: close it, whatever happens."""

    def __init__(
        self,
        first: Event,
        rest: AsyncGenerator[Event, None],
        ticket: Ticket,
        media: tuple[MediaFact, ...] = (),
        span: traces.Span = traces.OFF,
    ) -> None:
        self.media = media
        """What became of the request's pictures, clips and pages, in reading order."""
        self._first: Event | None = first
        self._rest = rest
        self._ticket = ticket
        self._span = span

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        if self._first is not None:
            event, self._first = self._first, None
            return event
        event = await anext(self._rest)
        if isinstance(event, Usage):
            self._span.set(output_tokens=event.completion_tokens, cached_tokens=event.cached_tokens)
        return event

    async def aclose(self) -> None:
        """Stop the engine's work on this request and give the ticket back."""
        try:
            await self._rest.aclose()
        finally:
            self._span.end()
            self._ticket.close()


class Inference:
    """Runs requests on one engine."""

    def __init__(
        self,
        *,
        engine: Generator,
        family: Family,
        media: Media,
        gate: Gate,
        default_max_tokens: int | None = None,
        model_name: str = "",
    ) -> None:
        """`default_max_tokens`: of a request that sets no limit itself. `model_name`: as traces have it."""
        self._model_name = model_name
        self._engine = engine
        self._family = family
        self._media = media
        self._gate = gate
        self._default_max_tokens = default_max_tokens
        self._tokenising = anyio.CapacityLimiter(TOKENISING_THREADS)

    async def begin(self, conversation: Conversation, caller: Caller, *, streamed: bool = True) -> EventStream:
        """Admit a request, prepare it and await its first event. Cancelling this ends all of its work.

        Where the answer is not `streamed`, the engine may tell of many tokens at once.

        Raises:
            ApiError: Overloaded, EngineNotReady, InvalidImage, ContextLengthExceeded, or what the engine says.
        """
        self._require_ready()
        characters = text_length(conversation.messages)
        self._refuse_endless(characters)
        with traces.span("admission"):
            ticket = await self._gate.enter(self._ask(conversation, caller, characters))
        try:
            self._require_ready(or_soon=True)
            async with AsyncExitStack() as memory:
                with traces.span("media", sources=len(conversation.sources)):
                    opening = self._media.opened(conversation.sources, caller.tenant)
                    opened = await memory.enter_async_context(opening)
                with traces.span("prompt", characters=characters):
                    prompt = await self._build_prompt(conversation.messages, opened, characters)
                ticket.charge(len(prompt.token_ids))
                facts = media_facts(opened, prompt.pictures)
                sampling = self._fit(conversation.sampling, prompt)
                request = GenerationRequest(conversation.request_id, prompt, sampling, caller.tenant, streamed)
                ticket.submitted()
                first, events, span = await self._start(request)
                ticket.started()
        except BaseException:
            ticket.close()
            raise
        return EventStream(first, events, ticket, facts, span)

    async def answer(self, conversation: Conversation, caller: Caller) -> Answer:
        """Run a request to its end and fold its events."""
        n = conversation.sampling.n
        stream = await self.begin(conversation, caller, streamed=False)
        del conversation  # with the pictures as they came: the answer may take minutes
        async with aclosing(stream):
            return await fold(stream, n)

    def _require_ready(self, *, or_soon: bool = False) -> None:
        """`or_soon`: the request has waited, and may wait on for an engine that is being started again."""
        if self._engine.state is EngineState.RESTARTING and or_soon:
            return
        if self._engine.state is not EngineState.READY:
            raise EngineNotReady(f"The engine is {self._engine.state.value}; please try again.")

    def _ask(self, conversation: Conversation, caller: Caller, characters: int) -> AdmissionRequest:
        text = max(self._family.tokens_at_least(characters), characters // CHARACTERS_PER_TOKEN)
        tokens = text + FRAME_TOKENS * len(conversation.messages) + self._media.estimated_tokens(conversation.sources)
        return AdmissionRequest(caller.name, tokens, conversation.sampling.n, conversation.priority, conversation.flex)

    async def _build_prompt(self, messages: Sequence[Message], opened: Sequence[Opened], characters: int) -> Prompt:
        build = partial(self._family.build_prompt, messages, opened, self._engine.max_model_len)
        if characters + ROLE_CHARACTERS * len(messages) > LONG_TEXT:
            return await anyio.to_thread.run_sync(build, limiter=self._tokenising)
        return build()

    async def _start(self, request: GenerationRequest) -> tuple[Event, AsyncGenerator[Event, None], traces.Span]:
        """Hand a request to the engine and await its first event; the span goes on with the events."""
        span = traces.span(
            "engine",
            model=self._model_name,
            response_id=request.request_id,
            input_tokens=len(request.prompt.token_ids),
            choices=request.sampling.n,
            streamed=request.streamed,
        )
        with span.active():
            events = self._engine.generate(replace(request, trace_headers=span.headers()))
            del request
            try:
                return await anext(events), events, span
            except BaseException:
                await events.aclose()
                raise

    def _refuse_endless(self, characters: int) -> None:
        """Refuse texts that cannot fit by far, before their pictures are fetched and their tokens counted."""
        least = self._family.tokens_at_least(characters)
        if least > self._engine.max_model_len:
            raise surely_too_long(self._engine.max_model_len, least)

    def _fit(self, sampling: Sampling, prompt: Prompt) -> Sampling:
        """Settle max_tokens, which is a ceiling and no demand; refuse a prompt that leaves no room."""
        limit, used = self._engine.max_model_len, len(prompt.token_ids)
        room = limit - used
        if room < 1:
            advice = "Please shorten them, or give pictures a smaller max_pixels."
            raise too_long(limit, f"your messages have {used} tokens", advice)
        most = min(room, sampling.max_tokens or self._default_max_tokens or room)
        return replace(sampling, max_tokens=most, min_tokens=min(sampling.min_tokens, most))


def text_length(messages: Sequence[Message]) -> int:
    """Characters of text in all messages."""
    return sum(len(part) for message in messages for part in message.content if isinstance(part, str))


def media_facts(opened: Sequence[Opened], placed: Sequence[Placeholder]) -> tuple[MediaFact, ...]:
    """The small facts about pictures that are worth keeping longer than their patches; `placed` in the same order."""
    places = iter(placed)
    return tuple(_fact(one, picture, next(places).length) for one in opened for picture in one.pictures)


def _fact(opened: Opened, picture: Picture, tokens: int) -> MediaFact:
    fact = MediaFact(
        param=opened.source.param,
        kind="image" if picture.page is None else "page",
        original_size=picture.original_size,
        resized_size=picture.resized_size,
        tokens=tokens,
        page=picture.page,
        warnings=picture.warnings,
    )
    return replace(fact, kind="video", frames=picture.frames, fps=picture.fps) if isinstance(picture, Clip) else fact


async def fold(stream: EventStream, n: int) -> Answer:
    """Gather a stream's events into one answer with `n` choices."""
    texts: list[list[str]] = [[] for _ in range(n)]
    logprobs: list[list[TokenLogprob]] = [[] for _ in range(n)]
    choices = [Choice() for _ in range(n)]
    usage = Usage(0, 0)
    async for event in stream:
        match event:
            case TextDelta(index, text, tokens):
                texts[index].append(text)
                logprobs[index] += tokens
            case Finished(index, reason):
                choices[index].reason = reason
            case Usage():
                usage = event
            case Restarted():
                texts = [[] for _ in range(n)]
                logprobs = [[] for _ in range(n)]
    for choice, parts, told in zip(choices, texts, logprobs, strict=True):
        choice.text, choice.logprobs = "".join(parts), tuple(told)
    return Answer(tuple(choices), usage, stream.media)
