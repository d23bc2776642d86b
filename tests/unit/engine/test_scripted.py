"""The scripted engine does what its script says, so that tests and drills can believe it."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

import anyio
import pytest

from server.core import (
    EngineState,
    Event,
    Finished,
    FinishReason,
    GenerationRequest,
    Prompt,
    Sampling,
    TextDelta,
    TokenLogprob,
    Usage,
)
from server.engine.protocol import StartupError
from server.engine.scripted import LIKELY, Script, ScriptedEngine
from server.errors import EngineDied

WORDS = ("a", "b", "c")


def request(**sampling: Any) -> GenerationRequest:
    return GenerationRequest("req-1", Prompt([1, 2, 3]), Sampling(**sampling))


async def started(**knobs: Any) -> ScriptedEngine:
    engine = ScriptedEngine(Script(words=WORDS, **knobs))
    await engine.start(lambda phase, detail: None)
    return engine


async def play(engine: ScriptedEngine, **sampling: Any) -> list[Event]:
    async with aclosing(engine.generate(request(**sampling))) as events:
        return [event async for event in events]


def text(events: list[Event], index: int = 0) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta) and event.index == index)


async def test_it_says_its_words_and_counts_them() -> None:
    events = await play(await started())
    assert events == [*(TextDelta(0, word) for word in WORDS), Finished(0, FinishReason.STOP), Usage(3, 3)]


async def test_every_choice_hears_everything_and_ends_once() -> None:
    events = await play(await started(), n=3)
    assert [text(events, index) for index in range(3)] == ["abc"] * 3
    assert [event for event in events if isinstance(event, Finished)] == [
        Finished(index, FinishReason.STOP) for index in range(3)
    ]
    assert events[-1] == Usage(3, 9)


async def test_it_stops_at_max_tokens() -> None:
    events = await play(await started(), max_tokens=2)
    assert text(events) == "ab"
    assert events[-2:] == [Finished(0, FinishReason.LENGTH), Usage(3, 2)]


async def test_its_words_are_as_likely_as_they_are_said_to_be() -> None:
    events = await play(await started(), logprobs=2, max_tokens=1)
    assert events[0] == TextDelta(0, "a", (TokenLogprob(b"a", LIKELY, ((b"a", LIKELY), (b"b", LIKELY - 1))),))
    assert (await play(await started(), logprobs=0))[0] == TextDelta(0, "a", (TokenLogprob(b"a", LIKELY),))


async def test_rounds_repeat() -> None:
    assert text(await play(await started(repeat=3))) == "abc" * 3


async def test_it_is_ready_from_the_end_of_its_start_to_its_stop() -> None:
    engine = ScriptedEngine()
    states = [engine.state]
    await engine.start(lambda phase, detail: None)
    states.append(engine.state)
    await engine.stop()
    await engine.stop()
    states.append(engine.state)
    assert states == [EngineState.STARTING, EngineState.READY, EngineState.STOPPED]


async def test_delays_are_kept() -> None:
    began = anyio.current_time()
    engine = await started(start_delay=0.02, first_delay=0.02, delay=0.01)
    await play(engine)
    assert anyio.current_time() - began >= 0.07 - 0.005


async def test_a_start_can_fail() -> None:
    with pytest.raises(StartupError) as caught:
        await started(fail_start=True)
    assert caught.value.hint


@pytest.mark.parametrize("after", [0, 1, 3])
async def test_it_can_die_after_any_number_of_tokens(after: int) -> None:
    engine = await started(fail_after=after)
    heard: list[Event] = []
    async with aclosing(engine.generate(request())) as events:
        heard += [await anext(events) for _ in range(after)]
        with pytest.raises(EngineDied):
            await anext(events)
    assert text(heard) == "abc"[:after]
    assert engine.state is EngineState.DEAD
    assert engine.running == 0


async def test_who_is_inside_when_it_dies_is_told() -> None:
    engine = await started()
    async with aclosing(engine.generate(request())) as events:
        await anext(events)
        engine.die()
        with pytest.raises(EngineDied):
            await anext(events)


async def test_it_can_hang() -> None:
    engine = await started(stall_after=1)
    async with aclosing(engine.generate(request())) as events:
        assert await anext(events) == TextDelta(0, "a")
        with anyio.move_on_after(0.02) as scope:
            await anext(events)
    assert scope.cancelled_caught
    assert engine.running == 0


async def test_it_counts_who_is_inside_and_keeps_what_was_asked() -> None:
    engine = await started()
    events = engine.generate(request(seed=5))
    assert (engine.running, engine.requests) == (0, [])
    await anext(events)
    assert (engine.running, engine.requests) == (1, [request(seed=5)])
    await events.aclose()
    assert engine.running == 0


# ---- More than one life


async def test_it_can_die_of_so_many_requests_and_live_through_those_after() -> None:
    engine = await started(fail_after=1, failures=2)
    for _ in range(2):
        with pytest.raises(EngineDied):
            await play(engine)
        await engine.start(lambda phase, detail: None)
    assert text(await play(engine)) == "abc"
    assert (engine.starts, engine.deaths) == (3, 2)


async def test_a_request_of_a_life_that_is_over_does_not_go_on_in_the_next() -> None:
    engine = await started()
    async with aclosing(engine.generate(request())) as events:
        await anext(events)
        await engine.kill()
        await engine.stop()
        await engine.start(lambda phase, detail: None)
        with pytest.raises(EngineDied):
            await anext(events)
    assert text(await play(engine)) == "abc"


@pytest.mark.parametrize("knobs", [{"stall_after": 1}, {"first_delay": 60}, {"delay": 60}], ids=str)
async def test_killing_it_ends_whatever_runs_at_once(knobs: dict[str, Any]) -> None:
    engine = await started(**knobs)

    async def killed_soon() -> None:
        await anyio.sleep(0.02)
        await engine.kill()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(killed_soon)
            with pytest.raises(EngineDied):
                await play(engine)
    assert engine.state is EngineState.DEAD
    assert engine.running == 0


# ---- Signs of life


async def test_its_heart_beats() -> None:
    with anyio.fail_after(5):
        await (await started()).beat()


async def test_it_can_give_no_sign_of_life_until_it_is_killed() -> None:
    engine = await started(hang=True)
    with anyio.move_on_after(0.02) as scope:
        await engine.beat()
    assert scope.cancelled_caught
    assert await engine.activity() == await engine.activity(), "it uses no processor"
    await engine.kill()
    with anyio.fail_after(5):
        await engine.beat()


async def test_stopping_it_ends_what_runs_and_twice_does_no_harm() -> None:
    engine = await started(stall_after=1)
    async with aclosing(engine.generate(request())) as events:
        await anext(events)
        await engine.stop()
        await engine.stop()
        with pytest.raises(EngineDied):
            await anext(events)
    assert engine.state is EngineState.STOPPED
