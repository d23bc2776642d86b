"""An engine that comes back, and what becomes of the requests that were in it."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core import (
    EngineState,
    Event,
    GenerationRequest,
    Picture,
    Placeholder,
    Prompt,
    Restarted,
    Sampling,
    TextDelta,
    Usage,
)
from server.engine import in_flight, supervisor
from server.engine import suspicion as suspects
from server.engine.protocol import Engine, ProcessActivity, StartupError
from server.engine.scripted import Script, ScriptedEngine
from server.engine.supervisor import Patience, Supervisor
from server.engine.suspicion import Fingerprint, Suspicion
from server.errors import ApiError, BadRequest, CrashesEngine, EngineDied, EngineNotReady
from tests.waiting import PATIENCE_S

WORDS = ("a", "b", "c", "d")
PATIENT = Patience()
ALERT = Patience(beat_every_s=0.01, silent_s=0.08)
KILLS_AT_ONCE, KILLS_LATER = 666, 667
"""Tokens of which an engine dies: before its first token, or after two."""


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Nobody wants to wait as long as a real engine needs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor, "LOOK_EVERY_S", 0.01)
        patch.setattr(supervisor, "BACKOFF_S", (0.0,))
        yield


class Life(ScriptedEngine):
    """One life of an engine, which some requests end."""

    def __init__(self, script: Script, plant: Plant) -> None:
        super().__init__(script)
        self.plant = plant
        self.began: float | None = None
        self.busy = False
        self.stuck = False
        self.is_killed = self.is_stopped = False

    async def start(self, report: Callable[[str, str], None]) -> None:
        assert all(life is self or life.is_stopped for life in self.plant.lives), "two engines at once need two GPUs"
        self.began = time.monotonic()
        await super().start(report)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        async with aclosing(super().generate(request)) as events:
            heard = 0
            while True:
                if heard == {KILLS_AT_ONCE: 0, KILLS_LATER: 2}.get(request.prompt.token_ids[0]):
                    await asyncio.sleep(0.005)  # others come in, too
                    self.die()
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return
                heard += 1
                yield event

    async def activity(self) -> ProcessActivity:
        return ProcessActivity(time.monotonic() if self.busy else 0.0, self.stuck)

    async def kill(self) -> None:
        self.is_killed = True
        await super().kill()

    async def stop(self) -> None:
        self.is_stopped = True
        await super().stop()


class Plant:
    """Makes an engine for each life; the last script holds for all that follow."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = scripts
        self.lives: list[Life] = []

    def __call__(self) -> Life:
        life = Life(self.scripts[min(len(self.lives), len(self.scripts) - 1)], self)
        self.lives.append(life)
        return life


def script(**knobs: Any) -> Script:
    return Script(words=WORDS, **knobs)


SOUND = script()
DIES_EARLY, DIES_LATE, STALLS = script(fail_after=0), script(fail_after=2), script(stall_after=0)


@dataclass
class Watched:
    """A supervisor and all around it."""

    engine: Supervisor
    plant: Plant
    watching: asyncio.Task[None]

    @property
    def lives(self) -> list[Life]:
        return self.plant.lives

    def told(self, name: str, **labels: str) -> float:
        [value] = [
            reading.value
            for reading in self.engine.readings()
            if reading.name == name and dict(reading.labels) == labels
        ]
        return value

    async def ready(self, life: int) -> None:
        """Wait for the engine's life of that number, counted from 1."""
        await until(lambda: len(self.lives) >= life and self.engine.state is EngineState.READY)


@asynccontextmanager
async def watched(
    *scripts: Script,
    patience: Patience = PATIENT,
    warm_up: Callable[[Engine], Awaitable[None]] | None = None,
) -> AsyncIterator[Watched]:
    plant = Plant(*scripts)
    engine = Supervisor(plant, patience, warm_up)
    await engine.start(lambda phase, detail: None)
    house = Watched(engine, plant, asyncio.create_task(engine.watch()))
    try:
        yield house
    finally:
        house.watching.cancel()
        with suppress(asyncio.CancelledError, StartupError):
            await house.watching
        await engine.stop()
        assert all(life.running == 0 for life in plant.lives)
        assert all(life.is_stopped for life in plant.lives)


async def until(condition: Callable[[], object], within: float = PATIENCE_S) -> None:
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110  what is waited for has no event
            await asyncio.sleep(0.005)


def asks(token: int = 1, name: str = "req-1", *, streamed: bool = False, **sampling: Any) -> GenerationRequest:
    return GenerationRequest(name, Prompt([token, 2, 3]), Sampling(**sampling), streamed=streamed)


async def heard(engine: Supervisor, request: GenerationRequest) -> list[Event]:
    async with aclosing(engine.generate(request)) as events:
        return [event async for event in events]


async def answer(engine: Supervisor, request: GenerationRequest) -> str:
    """The answer as it is folded: what came before Restarted is void."""
    text = ""
    for event in await heard(engine, request):
        match event:
            case TextDelta(_, more):
                text += more
            case Restarted():
                assert not request.streamed
                text = ""
            case Usage():
                assert event.completion_tokens == len(WORDS)
    return text


# ---- It comes back


async def test_an_engine_that_dies_is_started_again_in_place() -> None:
    async with watched(SOUND) as house:
        house.lives[0].die()
        assert house.engine.state is EngineState.RESTARTING, "at once, before anybody has looked"
        await house.ready(2)
        assert await answer(house.engine, asks()) == "abcd"
        assert house.lives[0].is_killed
        assert house.lives[0].is_stopped
        assert house.told("ain_engine_restarts", reason="died") == 1
        assert house.told("ain_engine_restarts", reason="hung") == 0


async def test_the_state_is_told_as_one_of_many() -> None:
    async with watched(SOUND) as house:
        states = {state: house.told("ain_engine_state", state=state.value) for state in EngineState}
        assert states == {state: state is EngineState.READY for state in EngineState}


async def test_what_is_known_of_the_engine_holds_while_it_is_away() -> None:
    async with watched(script(max_model_len=77, concurrency=5), script(max_model_len=77, start_delay=60)) as house:
        house.lives[0].die()
        await until(lambda: len(house.lives) == 2)
        assert (house.engine.max_model_len, house.engine.concurrency) == (77, 5)


async def test_each_life_is_warmed_up_before_it_takes_requests() -> None:
    warmed: list[tuple[Engine, EngineState]] = []

    async def warm_up(engine: Engine) -> None:
        warmed.append((engine, house_state()))

    def house_state() -> EngineState:
        return house.engine.state if warmed else EngineState.STARTING

    async with watched(SOUND, warm_up=warm_up) as house:
        house.lives[0].die()
        await house.ready(2)
        assert [engine for engine, _ in warmed] == house.lives
        assert EngineState.READY not in [state for _, state in warmed]


@pytest.mark.parametrize("error", [StartupError("cold"), EngineDied("It died."), BadRequest("odd")])
async def test_a_life_that_fails_its_warm_up_is_replaced(error: Exception) -> None:
    async def warm_up(engine: Engine) -> None:
        if len(plants[0].lives) == 2:
            raise error

    plants: list[Plant] = []
    async with watched(SOUND, warm_up=lambda engine: warm_up(engine) if plants else asyncio.sleep(0)) as house:
        plants.append(house.plant)
        house.lives[0].die()
        await house.ready(3)
        assert house.lives[1].is_stopped


async def test_an_engine_that_does_not_start_the_first_time_is_the_operators_matter() -> None:
    engine = Supervisor(Plant(script(fail_start=True)))
    with pytest.raises(StartupError, match="fails to start"):
        await engine.start(lambda phase, detail: None)
    assert engine.state is EngineState.STARTING


# ---- What becomes of requests


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_request_that_has_no_first_token_yet_is_run_again_by_itself(streamed: bool) -> None:
    async with watched(DIES_EARLY, SOUND) as house:
        events = await heard(house.engine, asks(streamed=streamed))
        assert [event.text for event in events if isinstance(event, TextDelta)] == list(WORDS)
        assert not any(isinstance(event, Restarted) for event in events), "nothing came before"
        assert [len(life.requests) for life in house.lives] == [1, 1]
        assert house.told("ain_requests_replayed") == 1


async def test_an_answer_that_nobody_has_seen_begins_anew() -> None:
    async with watched(DIES_LATE, SOUND) as house:
        events = await heard(house.engine, asks())
        assert events[:3] == [TextDelta(0, "a"), TextDelta(0, "b"), Restarted()]
        assert await answer(house.engine, asks()) == "abcd"
        assert [event for event in events[3:] if isinstance(event, TextDelta)] == [TextDelta(0, word) for word in WORDS]


async def test_a_stream_that_has_begun_ends_with_an_error_and_is_not_run_again() -> None:
    async with watched(DIES_LATE, SOUND) as house:
        stream = house.engine.generate(asks(streamed=True))
        assert [await anext(stream), await anext(stream)] == [TextDelta(0, "a"), TextDelta(0, "b")]
        with pytest.raises(EngineDied, match="in the middle of this answer"):
            await anext(stream)
        await house.ready(2)
        assert house.lives[1].requests == []
        assert house.told("ain_requests_replayed") == 0


async def test_all_that_were_in_it_are_run_again() -> None:
    async with watched(script(first_delay=0.02, fail_after=0), script(delay=0.001)) as house:
        answers = await asyncio.gather(*(answer(house.engine, asks(number, f"req-{number}")) for number in range(20)))
        assert answers == ["abcd"] * 20


async def test_who_comes_while_it_is_away_waits_for_it_or_is_told_to_come_back() -> None:
    async with watched(SOUND, script(start_delay=0.05)) as house:
        house.lives[0].die()
        try:
            assert await answer(house.engine, asks()) == "abcd"
        except EngineNotReady:
            await house.ready(2)


async def test_a_request_that_is_cancelled_while_the_engine_is_away_is_not_run_again() -> None:
    async with watched(DIES_EARLY, script(start_delay=0.1)) as house:
        waiting = asyncio.create_task(answer(house.engine, asks()))
        await until(lambda: len(house.lives) == 2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await house.ready(2)
        assert house.lives[1].requests == []


async def test_other_errors_of_the_engine_are_the_requests_own() -> None:
    class Picky(Life):
        async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
            if request.sampling.seed is None:
                raise BadRequest("no")
            yield TextDelta(0, "yes")

    plant = Plant(SOUND)
    engine = Supervisor(lambda: Picky(SOUND, plant))
    await engine.start(lambda phase, detail: None)
    with pytest.raises(BadRequest):
        await answer(engine, asks())
    assert engine.state is EngineState.READY
    await engine.stop()


async def test_a_slow_reader_of_an_old_life_does_no_harm_to_the_new_one() -> None:
    """It hears of the death when the engine has long come back."""
    async with watched(SOUND) as house:
        stream = house.engine.generate(asks(streamed=True))
        await anext(stream)
        house.lives[0].die()
        await house.ready(2)
        with pytest.raises(EngineDied):
            await anext(stream)
        assert house.engine.state is EngineState.READY
        await asyncio.sleep(0.05)
        assert len(house.lives) == 2


# ---- Who is at fault


async def test_a_request_that_kills_the_engine_twice_is_refused_and_at_once_when_it_comes_again() -> None:
    async with watched(SOUND) as house:
        with pytest.raises(CrashesEngine) as caught:
            await answer(house.engine, asks(KILLS_AT_ONCE))
        assert (caught.value.status, caught.value.code) == (422, "request_crashes_engine")
        await house.ready(3)
        for streamed in (False, True):
            with pytest.raises(CrashesEngine):
                await answer(house.engine, replace(asks(KILLS_AT_ONCE, "another"), tenant="else", streamed=streamed))
        assert len(house.lives) == 3
        assert house.lives[2].requests == []
        assert await answer(house.engine, asks()) == "abcd"


async def test_a_stream_that_kills_the_engine_before_its_first_token_is_refused_the_same() -> None:
    async with watched(SOUND) as house:
        with pytest.raises(CrashesEngine):
            await answer(house.engine, asks(KILLS_AT_ONCE, streamed=True))
        await house.ready(3)


async def test_a_request_that_kills_the_engine_in_mid_answer_is_found_out_too() -> None:
    async with watched(SOUND) as house:
        with pytest.raises(CrashesEngine):
            await answer(house.engine, asks(KILLS_LATER))
        await house.ready(2)
        assert len(house.lives) <= 4
        assert await answer(house.engine, asks()) == "abcd"


@settings(max_examples=25, deadline=None)
@given(
    innocents=st.lists(st.booleans(), min_size=1, max_size=12),
    place=st.integers(0, 11),
    first_delay=st.sampled_from((0.0, 0.003, 0.02)),
)
def test_innocents_beside_a_request_that_kills_the_engine_are_all_answered(
    innocents: list[bool], place: int, first_delay: float
) -> None:
    """But for streams that had begun; and the engine is started again no more than twice."""

    async def run() -> None:
        async with watched(script(first_delay=first_delay, delay=0.002)) as house:
            requests = [asks(number + 1, f"req-{number}", streamed=kind) for number, kind in enumerate(innocents)]
            requests.insert(place % len(requests), asks(KILLS_AT_ONCE, "poison"))
            found = await asyncio.gather(*(answer(house.engine, one) for one in requests), return_exceptions=True)
            for request, one in zip(requests, found, strict=True):
                if request.request_id == "poison":
                    assert isinstance(one, CrashesEngine)
                elif request.streamed and isinstance(one, EngineDied):
                    assert "in the middle" in one.message
                else:
                    assert one == "abcd"
            assert len(house.lives) <= 3

    asyncio.run(run())


async def test_an_engine_that_somebody_kills_twice_makes_no_request_suspect() -> None:
    """All were in the middle of their answers: nothing points at one of them."""
    async with watched(script(delay=0.01)) as house:
        waiting = [asyncio.create_task(answer(house.engine, asks(number, f"{number}"))) for number in range(1, 4)]
        for life in (1, 2):
            await house.ready(life)
            await until(lambda: house.lives[-1].running == 3)
            await asyncio.sleep(0.015)
            house.lives[-1].die()
        assert await asyncio.gather(*waiting) == ["abcd"] * 3


async def test_a_suspect_that_gives_up_lets_the_next_one_in() -> None:
    async with watched(script(fail_after=0, first_delay=0.01), STALLS) as house:
        first, second = (asyncio.create_task(answer(house.engine, asks(number))) for number in (1, 2))
        await until(lambda: len(house.lives) == 2 and house.lives[1].running == 1)
        house.lives[1].script = SOUND
        [in_it] = [number for request in house.lives[1].requests for number in request.prompt.token_ids[:1]]
        (first if in_it == 1 else second).cancel()
        assert await (second if in_it == 1 else first) == "abcd"


async def test_a_stream_that_kills_the_engine_late_is_found_out_when_it_is_sent_again_and_again() -> None:
    """Nothing of it can be run again by itself, and each time nobody else is to blame either."""
    async with watched(script(fail_after=2), patience=Patience(restarts=5)) as house:
        for told in (EngineDied, EngineDied, CrashesEngine):
            with pytest.raises(told):
                await answer(house.engine, asks(1, streamed=True))
            await until(lambda: house.engine.state is EngineState.READY)
        assert len(house.lives) == 4
        with pytest.raises(CrashesEngine):
            await answer(house.engine, asks(1, "another name", streamed=True))
        assert house.lives[3].requests == []


def test_suspicion_is_of_what_is_asked_and_not_of_who_asks() -> None:
    suspicion = Suspicion()
    suspicion.add(Fingerprint(asks(1, "one")), 1.0)
    assert suspicion.against(Fingerprint(asks(1, "another name"))) == 1.0
    assert suspicion.against(Fingerprint(asks(1, temperature=0.5))) == 0.0, "all of what it asks counts"
    suspicion.clear(Fingerprint(asks(1)))
    assert suspicion.against(Fingerprint(asks(1))) == 0.0


def test_suspicion_forgets_the_oldest_and_after_a_while_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "REMEMBERED", 3)
    suspicion = Suspicion()
    for token in (0, 1, 2, 0, 3):
        suspicion.add(Fingerprint(asks(token)), 0.5)
    assert [suspicion.against(Fingerprint(asks(token))) for token in range(4)] == [1.0, 0.0, 0.5, 0.5]
    monkeypatch.setattr(suspects, "REMEMBERED_S", 0.0)
    assert suspicion.against(Fingerprint(asks(3))) == 0.0


# ---- What is kept for running a request again


def with_picture(name: str = "req-1", *, streamed: bool) -> tuple[GenerationRequest, weakref.ref[Any]]:
    patches = np.zeros((4, 1176), np.uint8)
    placed = Placeholder(Picture(patches, (1, 2, 2), "digest", (28, 28)), 1, 1)
    return GenerationRequest(name, Prompt([1, 2, 3], (placed,)), Sampling(), streamed=streamed), weakref.ref(patches)


class Forgetful(Life):
    """Keeps nothing of a request once it has begun to answer, as the real one."""

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        del request
        for word in WORDS:
            yield TextDelta(0, word)
            await asyncio.sleep(0)
            if self.state is EngineState.DEAD:
                raise EngineDied("It died.")
        yield Usage(3, 4)


async def forgetful() -> Supervisor:
    plant = Plant(SOUND)
    engine = Supervisor(lambda: Forgetful(SOUND, plant))
    await engine.start(lambda phase, detail: None)
    return engine


@pytest.mark.parametrize("streamed", [False, True])
async def test_pictures_are_kept_only_as_long_as_the_request_can_be_run_again(streamed: bool) -> None:
    engine = await forgetful()
    request, patches = with_picture(streamed=streamed)
    events = engine.generate(request)
    del request
    await anext(events)
    gc.collect()
    assert (patches() is None) == streamed
    await events.aclose()
    gc.collect()
    assert patches() is None
    await engine.stop()


async def test_where_memory_for_them_is_short_a_request_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "KEPT_BYTES", 4 * 1176)
    async with watched(script(delay=0.02), script(delay=0.002)) as house:
        requests = [with_picture(f"req-{number}", streamed=False)[0] for number in range(3)]
        waiting = [asyncio.create_task(answer(house.engine, request)) for request in requests]
        await until(lambda: house.lives[0].running == 3)
        await asyncio.sleep(0.03)
        house.lives[0].die()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert found.count("abcd") == 1
        assert sum(isinstance(one, EngineDied) for one in found) == 2
        assert await answer(house.engine, with_picture(streamed=False)[0]) == "abcd"


# ---- It hangs


async def test_an_engine_that_gives_no_sign_of_life_is_killed_and_started_again() -> None:
    async with watched(script(hang=True, stall_after=0), SOUND, patience=ALERT) as house:
        assert await answer(house.engine, asks()) == "abcd"
        assert house.lives[0].is_killed
        assert house.told("ain_engine_restarts", reason="hung") == 1
        assert house.told("ain_engine_restarts", reason="died") == 0


async def test_an_engine_that_is_busy_is_given_time() -> None:
    async with watched(script(hang=True), SOUND, patience=ALERT) as house:
        house.lives[0].busy = True
        await asyncio.sleep(6 * ALERT.silent_s)
        assert len(house.lives) == 1
        assert await answer(house.engine, asks()) == "abcd"
        house.lives[0].busy = False
        await house.ready(2)


async def test_but_not_for_ever() -> None:
    async with watched(script(hang=True), SOUND, patience=replace(ALERT, step_s=0.3)) as house:
        house.lives[0].busy = True
        await house.ready(2)
        assert house.told("ain_engine_restarts", reason="hung") == 1


async def test_an_engine_is_hung_however_busy_where_one_of_its_processes_has_stopped() -> None:
    async with watched(script(hang=True), SOUND, patience=ALERT) as house:
        house.lives[0].busy = house.lives[0].stuck = True
        await house.ready(2)


async def test_an_engine_that_answers_is_left_alone_however_idle() -> None:
    async with watched(SOUND, patience=ALERT) as house:
        await asyncio.sleep(5 * ALERT.silent_s)
        assert len(house.lives) == 1


async def test_an_engine_whose_heartbeat_fails_is_dead_and_not_hung() -> None:
    class Failing(Life):
        async def beat(self) -> None:
            raise EngineDied("It died.")

    plant = Plant(SOUND)

    def make() -> Life:
        plant.lives.append(Failing(SOUND, plant) if not plant.lives else Life(SOUND, plant))
        return plant.lives[-1]

    engine = Supervisor(make, ALERT)
    await engine.start(lambda phase, detail: None)
    watching = asyncio.create_task(engine.watch())
    await asyncio.sleep(3 * ALERT.silent_s)
    assert len(plant.lives) == 1, "a failing heartbeat alone proves nothing"
    plant.lives[0].die()
    await until(lambda: len(plant.lives) == 2 and engine.state is EngineState.READY)
    counted = {dict(reading.labels).get("reason"): reading.value for reading in engine.readings()}
    assert (counted["died"], counted["hung"]) == (1, 0)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    await engine.stop()


# ---- It does not come back


async def test_an_engine_that_does_not_come_back_is_given_up() -> None:
    async with watched(SOUND, script(fail_start=True), patience=Patience(restarts=3)) as house:
        house.lives[0].die()
        waiting = asyncio.create_task(answer(house.engine, asks()))
        with pytest.raises(StartupError, match="The engine died 4 times within ten minutes") as caught:
            await house.watching
        assert caught.value.hint
        assert len(house.lives) == 4
        assert house.engine.state is EngineState.DEAD
        with pytest.raises((EngineNotReady, EngineDied)):
            await waiting
        with pytest.raises(ApiError) as refused:
            await answer(house.engine, asks())
        assert refused.value.status == 503


async def test_requests_that_wait_for_an_engine_that_is_given_up_are_told_to_go_elsewhere() -> None:
    async with watched(DIES_EARLY, script(fail_start=True, start_delay=0.02), patience=Patience(restarts=2)) as house:
        with pytest.raises(EngineNotReady, match="could not be started again"):
            await answer(house.engine, asks())


async def test_without_restarts_the_first_death_is_the_end() -> None:
    async with watched(DIES_EARLY, patience=Patience(restarts=0)) as house:
        with pytest.raises(EngineDied):
            await answer(house.engine, asks())
        with pytest.raises(StartupError, match=r"^The engine died\.$"):
            await house.watching
        assert len(house.lives) == 1
        assert house.engine.state is EngineState.DEAD


async def test_without_restarts_a_hung_engine_is_the_end_too() -> None:
    async with watched(script(hang=True, stall_after=0), patience=replace(ALERT, restarts=0)) as house:
        with pytest.raises(EngineDied):
            await answer(house.engine, asks())
        with pytest.raises(StartupError, match=r"^The engine hung\.$"):
            await house.watching
        assert house.lives[0].is_killed


async def test_restarts_of_long_ago_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "WINDOW_S", 0.0)
    async with watched(SOUND, patience=Patience(restarts=1)) as house:
        for life in (2, 3, 4):
            house.lives[-1].die()
            await asyncio.sleep(0.02)
            await house.ready(life)


async def test_each_restart_is_put_off_longer_than_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.0, 0.05, 0.15))
    async with watched(SOUND, *[script(fail_start=True)] * 3, SOUND) as house:
        house.lives[0].die()
        await house.ready(5)
        began = [life.began for life in house.lives[1:] if life.began is not None]
        gaps = [later - earlier for earlier, later in pairwise(began)]
        assert [gap >= wanted for gap, wanted in zip(gaps, (0.05, 0.15, 0.15), strict=True)] == [True] * 3


# ---- It is stopped


async def test_stopping_twice_does_no_harm() -> None:
    async with watched(SOUND) as house:
        await house.engine.stop()
        await house.engine.stop()
        assert house.engine.state is EngineState.STOPPED
        await asyncio.wait_for(house.watching, PATIENCE_S)


async def test_stopping_while_it_is_started_again_leaves_no_engine_behind() -> None:
    async with watched(DIES_EARLY, script(start_delay=0.1)) as house:
        waiting = asyncio.create_task(answer(house.engine, asks()))
        await until(lambda: len(house.lives) == 2)
        await house.engine.stop()
        with pytest.raises(EngineNotReady):
            await waiting
        await asyncio.wait_for(house.watching, PATIENCE_S)
        assert house.engine.state is EngineState.STOPPED
        assert len(house.lives) == 2
        assert house.lives[1].state is EngineState.STOPPED


async def test_stopping_while_a_restart_is_put_off_begins_no_further_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_S", (0.1,))
    async with watched(SOUND) as house:
        house.lives[0].die()
        await until(lambda: house.lives[0].is_stopped)
        await house.engine.stop()
        await asyncio.wait_for(house.watching, PATIENCE_S)
        assert len(house.lives) == 1
