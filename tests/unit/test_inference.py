"""A request's life: what holds its place, what ends it, and that nothing is left behind."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import anyio
import numpy as np
import pytest

from server.admission.gate import Gate
from server.core import (
    Caller,
    Conversation,
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
from server.engine.scripted import Script, ScriptedEngine
from server.errors import ApiError, ContextLengthExceeded, EngineDied, EngineNotReady, InvalidImage, Overloaded
from server.inference import FRAME, LONG_TEXT, Choice, Inference, text_length

CALLER = Caller("somebody", "tenant-1")


class Letters:
    """A family whose every letter is a token."""

    min_pixels, max_pixels, factor, merge_size = 3136, 200_704, 28, 2

    def __init__(self) -> None:
        self.threads: list[int] = []

    def tokens_at_least(self, characters: int) -> int:
        return characters // 10

    def build_prompt(self, messages: Sequence[Message], pictures: Sequence[Picture]) -> Prompt:
        self.threads.append(threading.get_ident())
        return Prompt([ord(letter) for message in messages for part in message.content for letter in str(part)])


@dataclass
class Pictures:
    """Pictures that are at hand, broken, or never come."""

    error: ApiError | None = None
    never: bool = False
    asked: list[tuple[int, str]] = field(default_factory=list)

    async def prepare(self, sources: Sequence[PictureSource], tenant: str) -> list[Picture]:
        self.asked.append((len(sources), tenant))
        if self.never:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error
        return [Picture(np.zeros((4, 1176), np.uint8), (1, 2, 2), "digest", (28, 28)) for _ in sources]


class Room:
    """An Inference with everything around it."""

    def __init__(self, script: Script | None = None, pictures: Pictures | None = None, **options: Any) -> None:
        self.engine = ScriptedEngine(script)
        self.gate = Gate(2)
        self.family = Letters()
        self.pictures = pictures or Pictures()
        self.inference = Inference(
            engine=self.engine, family=self.family, pictures=self.pictures, gate=self.gate, **options
        )

    async def ready(self) -> Room:
        await self.engine.start(lambda phase, detail: None)
        return self

    @property
    def empty(self) -> bool:
        return self.gate.inside == 0 and self.engine.running == 0


def ask(text: str = "Hello", pictures: int = 0, **sampling: Any) -> Conversation:
    sources = tuple(PictureSource("data:", f"messages[0].content[{index}]") for index in range(pictures))
    return Conversation("req-1", (Message("user", (text, *sources)),), Sampling(**sampling))


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
    assert room.pictures.asked == []
    assert len(room.family.threads) == 2
    for stream in streams:
        await stream.aclose()
    assert room.empty


async def test_an_engine_that_is_not_ready_is_told_before_any_work() -> None:
    room = Room()
    with pytest.raises(EngineNotReady, match="starting"):
        await room.inference.begin(ask(pictures=1), CALLER)
    assert room.pictures.asked == []
    assert room.empty


@pytest.mark.parametrize(
    ("script", "pictures", "conversation", "error"),
    [
        (Script(), Pictures(InvalidImage("x", code="invalid_image")), ask(pictures=1), InvalidImage),
        (Script(max_model_len=3), Pictures(), ask(), ContextLengthExceeded),
        (Script(fail_after=0), Pictures(), ask(), EngineDied),
    ],
    ids=["a broken picture", "too long", "a dying engine"],
)
async def test_whatever_goes_wrong_the_place_is_given_back(
    script: Script, pictures: Pictures, conversation: Conversation, error: type[ApiError]
) -> None:
    room = await Room(script, pictures).ready()
    with pytest.raises(error):
        await room.inference.begin(conversation, CALLER)
    assert room.empty


async def test_an_engine_that_dies_in_mid_answer_gives_the_place_back() -> None:
    room = await Room(Script(fail_after=2)).ready()
    with pytest.raises(EngineDied):
        await room.inference.answer(ask(), CALLER)
    assert room.empty


@pytest.mark.parametrize(
    ("script", "pictures"),
    [(Script(first_delay=60), Pictures()), (Script(stall_after=1), Pictures()), (Script(), Pictures(never=True))],
    ids=["before the first token", "in mid answer", "while pictures are prepared"],
)
async def test_cancelling_ends_all_work(script: Script, pictures: Pictures) -> None:
    room = await Room(script, pictures).ready()
    with anyio.move_on_after(0.02) as scope:
        await room.inference.answer(ask(pictures=1), CALLER)
    assert scope.cancelled_caught
    assert room.empty


# ---- Pictures and text


async def test_pictures_are_prepared_for_their_tenant_and_only_where_there_are_any() -> None:
    room = await Room().ready()
    await room.inference.answer(ask(), CALLER)
    assert room.pictures.asked == []
    await room.inference.answer(ask(pictures=2), CALLER)
    assert room.pictures.asked == [(2, "tenant-1")]


async def test_long_texts_are_tokenised_beside_the_event_loop() -> None:
    room = await Room(Script(max_model_len=1 << 20)).ready()
    await room.inference.answer(ask("x" * (LONG_TEXT - FRAME)), CALLER)
    await room.inference.answer(ask("x" * (LONG_TEXT - FRAME + 1)), CALLER)
    here = threading.get_ident()
    assert [thread == here for thread in room.family.threads] == [True, False]


def test_the_length_of_a_text_leaves_pictures_out() -> None:
    assert text_length(ask("abc", pictures=2).messages) == 3


# ---- How long an answer may be


@pytest.mark.parametrize(
    ("asked", "default", "given"),
    [(None, None, 95), (None, 10, 10), (None, 1000, 95), (20, None, 20), (20, 10, 20), (95, 10, 95)],
)
async def test_max_tokens_is_what_was_asked_else_the_default_else_the_room(
    asked: int | None, default: int | None, given: int
) -> None:
    room = await Room(Script(max_model_len=100), default_max_tokens=default).ready()
    await room.inference.answer(ask(max_tokens=asked), CALLER)
    assert room.engine.requests[0].sampling.max_tokens == given


@pytest.mark.parametrize(("context", "asked"), [(5, None), (5, 1), (4, None), (100, 96), (100, 1 << 31)])
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
    assert room.pictures.asked == []
    assert room.family.threads == []


# ---- A made-up engine


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
    room.inference = Inference(engine=engine, family=room.family, pictures=room.pictures, gate=room.gate)
    answer = await room.inference.answer(ask(n=2), CALLER)
    assert answer.choices == (Choice("zero", FinishReason.STOP), Choice("one", FinishReason.LENGTH))
    assert answer.usage == Usage(1, 2, 3)
