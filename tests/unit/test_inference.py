"""A request's life: what holds its place, what ends it, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import numpy as np
import pytest

from server.admission.gate import Gate, GateLimits, Ticket
from server.admission.queue import AdmissionRequest
from server.core import (
    Caller,
    Choice,
    Clip,
    ClipSource,
    Conversation,
    DocumentSource,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    MediaFact,
    Message,
    Opened,
    Picture,
    PictureSource,
    Placeholder,
    Prompt,
    Restarted,
    Sampling,
    Source,
    TextDelta,
    Usage,
)
from server.engine.scripted import Script, ScriptedEngine
from server.errors import ApiError, ContextLengthExceeded, EngineDied, EngineNotReady, InvalidImage, Overloaded
from server.inference import CHARACTERS_PER_TOKEN, FRAME_TOKENS, LONG_TEXT, ROLE_CHARACTERS, Inference, text_length

CALLER = Caller("somebody", "tenant-1")


class Letters:
    """A family whose every letter is a token."""

    min_pixels, max_pixels, factor, patch_size, merge_size = 3136, 200_704, 28, 14, 2
    max_frame_pixels = 100_352
    takes_clips = True

    def __init__(self) -> None:
        self.threads: list[int] = []

    def tokens_at_least(self, characters: int) -> int:
        return characters // 10

    def build_prompt(
        self, messages: Sequence[Message], opened: Sequence[Opened], most_tokens: int | None = None
    ) -> Prompt:
        self.most_tokens = most_tokens
        self.threads.append(threading.get_ident())
        ids = [ord(letter) for message in messages for part in message.content for letter in str(part)]
        placed = (Placeholder(picture, 0, 10 * number) for number, picture in enumerate(_all(opened), 1))
        return Prompt(ids, tuple(placed))


def _all(opened: Sequence[Opened]) -> list[Picture]:
    return [picture for one in opened for picture in one.pictures]


def picture(page: int | None = None) -> Picture:
    return Picture(np.zeros((4, 1176), np.uint8), (1, 2, 2), "digest", (30, 20), page=page)


@dataclass
class Media:
    """Pictures that are at hand, broken, or never come; clips of six frames; documents of pages 3 and 5."""

    error: ApiError | None = None
    never: bool = False
    asked: list[tuple[int, str]] = field(default_factory=list)
    held: int = 0
    """Requests whose pictures are in memory."""
    given: list[weakref.ref[Any]] = field(default_factory=list)
    """The patches of all pictures, without keeping them."""

    @asynccontextmanager
    async def opened(self, sources: Sequence[Source], tenant: str) -> AsyncIterator[list[Opened]]:
        if sources:
            self.asked.append((len(sources), tenant))
        if self.never:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error
        self.held += 1
        try:
            yield [Opened(source, self._pictures(source)) for source in sources]
        finally:
            self.held -= 1

    def estimated_tokens(self, sources: Sequence[Source]) -> int:
        return 1000 * len(sources)

    def _pictures(self, source: Source) -> tuple[Picture, ...]:
        pictures: tuple[Picture, ...] = (picture(),)
        if isinstance(source, DocumentSource):
            pictures = (picture(3), picture(5))
        if isinstance(source, ClipSource):
            pictures = (Clip(np.zeros((12, 1176), np.uint8), (3, 2, 2), "digest", (30, 20), fps=1.5),)
        self.given += [weakref.ref(one.patches) for one in pictures]
        return pictures


class Room:
    """An Inference with everything around it."""

    def __init__(self, script: Script | None = None, media: Media | None = None, **options: Any) -> None:
        self.engine = ScriptedEngine(script)
        self.gate = Gate(GateLimits(max_requests=2))
        self.family = Letters()
        self.media = media or Media()
        self.inference = Inference(engine=self.engine, family=self.family, media=self.media, gate=self.gate, **options)

    async def ready(self) -> Room:
        await self.engine.start(lambda phase, detail: None)
        return self

    @property
    def empty(self) -> bool:
        gate = self.gate
        return (gate.inside, gate.running, gate.prefill_tokens, self.engine.running, self.media.held) == (0,) * 5


def ask(text: str = "Hello", pictures: int = 0, **sampling: Any) -> Conversation:
    sources = tuple(PictureSource("data:", f"messages[0].content[{index}]") for index in range(pictures))
    return Conversation("req-1", (Message("user", (text, *sources)),), Sampling(**sampling))


class Watched(Gate):
    """Keeps what was asked of it, and how many prompt tokens each ticket counted for at each step."""

    def __init__(self) -> None:
        super().__init__(GateLimits(max_requests=2))
        self.asks: list[AdmissionRequest] = []
        self.charges: list[int] = []

    async def enter(self, ask: AdmissionRequest) -> Ticket:
        self.asks.append(ask)
        return await super().enter(ask)

    def recount(self, ticket: Ticket, tokens: int) -> None:
        self.charges.append(tokens)
        super().recount(ticket, tokens)


# ---- Events and their fold


async def test_a_stream_gives_every_event_once_the_first_too() -> None:
    room = await Room(Script(words=("a", "b"))).ready()
    async with aclosing(await room.inference.begin(ask(), CALLER)) as stream:
        events = [event async for event in stream]
    assert events == [TextDelta(0, "a"), TextDelta(0, "b"), Finished(0, FinishReason.STOP), Usage(5, 2)]


async def test_an_answer_is_the_fold_of_its_stream() -> None:
    room = await Room(Script(words=("a", "b", "c"))).ready()
    answer = await room.inference.answer(ask(n=2, max_tokens=2), CALLER)
    assert answer.choices == (Choice("ab", FinishReason.LENGTH),) * 2
    assert answer.usage == Usage(5, 4)
    assert room.empty


async def test_the_engine_is_given_the_id_the_tenant_and_the_sampling() -> None:
    room = await Room().ready()
    await room.inference.answer(ask(temperature=0.5, max_tokens=3), CALLER)
    [request] = room.engine.requests
    assert (request.request_id, request.tenant) == ("req-1", "tenant-1")
    assert request.sampling == Sampling(temperature=0.5, max_tokens=3)


async def test_begin_returns_when_the_first_event_is_there_and_not_before() -> None:
    room = await Room(Script(first_delay=60)).ready()
    with anyio.move_on_after(0.05) as scope:
        await room.inference.begin(ask(), CALLER)
    assert scope.cancelled_caught
    assert room.empty


# ---- Its place in the house


async def test_a_stream_keeps_its_place_until_it_is_closed() -> None:
    room = await Room().ready()
    stream = await room.inference.begin(ask(), CALLER)
    assert (room.gate.inside, room.engine.running) == (1, 1)
    await stream.aclose()
    assert room.empty


async def test_closing_a_stream_twice_does_no_harm() -> None:
    room = await Room().ready()
    stream = await room.inference.begin(ask(), CALLER)
    other = await room.inference.begin(ask(), CALLER)
    await stream.aclose()
    await stream.aclose()
    assert room.gate.inside == 1
    await other.aclose()
    assert room.empty


async def test_a_full_house_is_refused_before_any_work() -> None:
    room = await Room(Script(stall_after=1)).ready()
    streams = [await room.inference.begin(ask(), CALLER) for _ in range(2)]
    with pytest.raises(Overloaded):
        await room.inference.begin(ask(pictures=1), CALLER)
    assert room.media.asked == []
    assert len(room.family.threads) == 2
    for stream in streams:
        await stream.aclose()
    assert room.empty


async def test_a_request_counts_for_its_answers_and_for_its_prompt_until_the_first_token() -> None:
    room = await Room(Script(first_delay=60)).ready()
    room.gate = gate = Watched()
    room.inference = Inference(engine=room.engine, family=room.family, media=room.media, gate=gate)
    conversation = replace(ask("x" * 300, pictures=2, n=3), priority=-4, flex=True)
    with anyio.move_on_after(0.05):
        await room.inference.begin(conversation, CALLER)
    guess = 300 // CHARACTERS_PER_TOKEN + FRAME_TOKENS + 2000
    assert gate.asks == [AdmissionRequest("somebody", guess, answers=3, priority=-4, flex=True)]
    [prompt] = [len(request.prompt.token_ids) for request in room.engine.requests]
    assert gate.charges == [prompt]
    assert room.empty
    room.engine.script = Script(stall_after=1)
    stream = await room.inference.begin(conversation, CALLER)
    assert (gate.running, gate.prefill_tokens) == (3, 0)
    await stream.aclose()
    assert room.empty


async def test_an_engine_that_dies_while_a_request_waits_for_its_turn_is_told_before_any_work() -> None:
    room = await Room(Script(stall_after=1)).ready()
    room.gate.max_running = 1
    stream = await room.inference.begin(ask(), CALLER)
    waiting = asyncio.create_task(room.inference.begin(ask(pictures=1), CALLER))
    await asyncio.sleep(0.01)
    room.engine.die()
    await stream.aclose()
    with pytest.raises(EngineNotReady, match="dead"):
        await waiting
    assert room.media.asked == []
    assert room.empty


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_engine_is_told_whether_somebody_waits_for_every_token(streamed: bool) -> None:
    room = await Room().ready()
    if streamed:
        await (await room.inference.begin(ask(), CALLER)).aclose()
    else:
        await room.inference.answer(ask(), CALLER)
    assert room.engine.requests[0].streamed == streamed


async def test_an_engine_that_is_not_ready_is_told_before_any_work() -> None:
    room = Room()
    with pytest.raises(EngineNotReady, match="starting"):
        await room.inference.begin(ask(pictures=1), CALLER)
    assert room.media.asked == []
    assert room.empty


@pytest.mark.parametrize(
    ("script", "media", "conversation", "error"),
    [
        (Script(), Media(InvalidImage("x", code="invalid_image")), ask(pictures=1), InvalidImage),
        (Script(max_model_len=3), Media(), ask(), ContextLengthExceeded),
        (Script(fail_after=0), Media(), ask(), EngineDied),
    ],
    ids=["a broken picture", "too long", "a dying engine"],
)
async def test_whatever_goes_wrong_the_place_is_given_back(
    script: Script, media: Media, conversation: Conversation, error: type[ApiError]
) -> None:
    room = await Room(script, media).ready()
    with pytest.raises(error):
        await room.inference.begin(conversation, CALLER)
    assert room.empty


async def test_an_engine_that_dies_in_mid_answer_gives_the_place_back() -> None:
    room = await Room(Script(fail_after=2)).ready()
    with pytest.raises(EngineDied):
        await room.inference.answer(ask(), CALLER)
    assert room.empty


@pytest.mark.parametrize(
    ("script", "media"),
    [(Script(first_delay=60), Media()), (Script(stall_after=1), Media()), (Script(), Media(never=True))],
    ids=["before the first token", "in mid answer", "while pictures are prepared"],
)
async def test_cancelling_ends_all_work(script: Script, media: Media) -> None:
    room = await Room(script, media).ready()
    with anyio.move_on_after(0.02) as scope:
        await room.inference.answer(ask(pictures=1), CALLER)
    assert scope.cancelled_caught
    assert room.empty


# ---- Pictures and text


async def test_pictures_are_prepared_for_their_tenant() -> None:
    room = await Room().ready()
    await room.inference.answer(ask(pictures=2), CALLER)
    assert room.media.asked == [(2, "tenant-1")]


MIXED = Conversation(
    "req-1",
    (
        Message("user", (PictureSource("data:", "a"), "x", ClipSource(("data:",), "b", is_file=True))),
        Message("user", ("y", DocumentSource("data:", "c"))),
    ),
)
FACTS = (
    MediaFact("a", "image", (30, 20), (28, 28), 10),
    MediaFact("b", "video", (30, 20), (28, 28), 20, frames=6, fps=1.5),
    MediaFact("c", "page", (30, 20), (28, 28), 30, page=3),
    MediaFact("c", "page", (30, 20), (28, 28), 40, page=5),
)


async def test_what_became_of_the_media_is_told_in_reading_order() -> None:
    room = await Room(Script(max_model_len=4096)).ready()
    assert (await room.inference.answer(MIXED, CALLER)).media == FACTS
    async with aclosing(await room.inference.begin(MIXED, CALLER)) as stream:
        assert stream.media == FACTS
    assert (await room.inference.answer(ask(), CALLER)).media == ()


async def test_patches_are_let_go_as_soon_as_the_engine_has_them() -> None:
    room = Room()
    room.engine = Forgetful()
    await room.ready()
    room.inference = Inference(engine=room.engine, family=room.family, media=room.media, gate=room.gate)
    async with aclosing(await room.inference.begin(MIXED, CALLER)) as stream:
        assert room.media.held == 0
        gc.collect()
        assert [reference() for reference in room.media.given] == [None] * 4
        assert len(stream.media) == 4


async def test_long_texts_are_tokenised_beside_the_event_loop() -> None:
    room = await Room(Script(max_model_len=1 << 20)).ready()
    await room.inference.answer(ask("x" * (LONG_TEXT - ROLE_CHARACTERS)), CALLER)
    await room.inference.answer(ask("x" * (LONG_TEXT - ROLE_CHARACTERS + 1)), CALLER)
    here = threading.get_ident()
    assert [thread == here for thread in room.family.threads] == [True, False]


def test_the_length_of_a_text_leaves_pictures_out() -> None:
    assert text_length(ask("abc", pictures=2).messages) == 3


# ---- How long an answer may be


@pytest.mark.parametrize(
    ("asked", "default", "given"),
    [(None, None, 95), (None, 10, 10), (None, 1000, 95), (20, None, 20), (20, 10, 20), (95, 10, 95), (1 << 31, 10, 95)],
)
async def test_max_tokens_is_what_was_asked_else_the_default_else_the_room(
    asked: int | None, default: int | None, given: int
) -> None:
    room = await Room(Script(max_model_len=100), default_max_tokens=default).ready()
    await room.inference.answer(ask(max_tokens=asked), CALLER)
    assert room.engine.requests[0].sampling.max_tokens == given


@pytest.mark.parametrize(("context", "asked"), [(5, None), (5, 1), (4, None), (4, 1 << 31)])
async def test_what_cannot_fit_is_refused_with_both_phrases_that_clients_look_for(
    context: int, asked: int | None
) -> None:
    room = await Room(Script(max_model_len=context)).ready()
    with pytest.raises(ContextLengthExceeded) as caught:
        await room.inference.begin(ask(max_tokens=asked), CALLER)
    assert f"This model's maximum context length is {context} tokens" in caught.value.message
    assert "context_length_exceeded" in caught.value.message
    assert room.engine.requests == []


async def test_a_text_that_cannot_fit_by_far_is_refused_before_pictures_are_fetched_or_tokens_counted() -> None:
    room = await Room(Script(max_model_len=100)).ready()
    with pytest.raises(ContextLengthExceeded, match="your messages have more than 200 tokens"):
        await room.inference.begin(ask("x" * 2000, pictures=1), CALLER)
    assert room.media.asked == []
    assert room.family.threads == []


# ---- Made-up engines


class Forgetful(ScriptedEngine):
    """Keeps nothing of a request once it has begun to answer, as the real one."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        del request
        yield TextDelta(0, "a")
        yield Finished(0, FinishReason.STOP)
        yield Usage(1, 1)


class Interleaved(ScriptedEngine):
    """Choices that end at different times, in another order than that of their indices."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        yield TextDelta(1, "one")
        yield Finished(1, FinishReason.LENGTH)
        yield TextDelta(0, "ze")
        yield TextDelta(0, "ro")
        yield Finished(0, FinishReason.STOP)
        yield Usage(1, 2, 3)


async def test_choices_may_come_in_any_order() -> None:
    room = Room()
    engine = Interleaved()
    await engine.start(lambda phase, detail: None)
    room.inference = Inference(engine=engine, family=room.family, media=room.media, gate=room.gate)
    answer = await room.inference.answer(ask(n=2), CALLER)
    assert answer.choices == (Choice("zero", FinishReason.STOP), Choice("one", FinishReason.LENGTH))
    assert answer.usage == Usage(1, 2, 3)


class Twice(ScriptedEngine):
    """Begins its answer anew after it has said something."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        yield TextDelta(0, "half an")
        yield TextDelta(1, "another half")
        yield Finished(1, FinishReason.LENGTH)
        yield Restarted()
        yield TextDelta(1, "two")
        yield TextDelta(0, "one")
        yield Finished(0, FinishReason.LENGTH)
        yield Finished(1, FinishReason.STOP)
        yield Usage(1, 2)


async def test_an_answer_that_begins_anew_is_not_doubled() -> None:
    room = Room()
    engine = Twice()
    await engine.start(lambda phase, detail: None)
    room.inference = Inference(engine=engine, family=room.family, media=room.media, gate=room.gate)
    answer = await room.inference.answer(ask(n=2), CALLER)
    assert answer.choices == (Choice("one", FinishReason.LENGTH), Choice("two", FinishReason.STOP))
