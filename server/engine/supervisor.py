"""Keeps an engine running: notices that it died or hangs, starts it again in place, and runs again what was in it.

    starting  ->  ready  ->  restarting  ->  ready  ->  ...  ->  dead (too many restarts: the process ends)

What becomes of the requests that were in the engine:

    nothing of the answer has been sent     run again by themselves, once the engine is back
    the stream has begun                    end with a retryable error event
    at fault for two crashes                refused, and refused at once when they come again
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from server.core import EngineState, Event, GenerationRequest, Reading, Restarted
from server.engine.in_flight import InFlight, InFlightRequests
from server.engine.protocol import Engine, Report, StartupError
from server.errors import ApiError, CrashesEngine, EngineDied, EngineNotReady

log = logging.getLogger(__name__)

Failure = Literal["died", "hung"]

LOOK_EVERY_S = 0.2
IDLE_SHARE = 0.02
"""An engine whose processes use less CPU than this share of the time does nothing."""
BACKOFF_S = (0.0, 1.0, 5.0, 15.0, 30.0)
"""Before each restart within the window; the last one repeats."""
WINDOW_S = 600.0
"""Restarts are counted over so long."""
STOP_WITHIN_S = 5.0
SENT = "The engine died in the middle of this answer; please send the request again."
POISON = (
    "The engine died twice while it worked on this request, so it is not run again. Please change it, or tell the "
    "operator: the server's log has the request's id."
)


@dataclass(frozen=True, slots=True)
class Patience:
    """When an engine counts as hung, and how often it is started again. Times in seconds."""

    restarts: int = 5
    """Within ten minutes; 0 lets the process end with the engine, for a balancer to take over."""
    beat_every_s: float = 2.0
    silent_s: float = 10.0
    """Without an answer, when its processes do nothing either."""
    step_s: float = 300.0
    """Without an answer, however busy they are: no step of the model takes as long."""


class Supervisor:
    """An engine that comes back. Belongs to one event loop; `start` it, `watch` it, and `stop` it."""

    def __init__(
        self,
        make: Callable[[], Engine],
        patience: Patience | None = None,
        warm_up: Callable[[Engine], Awaitable[None]] | None = None,
    ) -> None:
        """`make` gives an engine that has not been started; `warm_up` is run on each before requests come."""
        self._make = make
        self._patience = patience or Patience()
        self._warm_up = warm_up
        self._engine = make()
        self._state = EngineState.STARTING
        self._changed = asyncio.Event()
        """Set, and replaced, whenever the state changes."""
        self._in_flight = InFlightRequests()
        self._restarts: deque[float] = deque()
        self._counts: dict[Failure, int] = {"died": 0, "hung": 0}
        self._replayed = 0
        self._max_model_len = self._concurrency = 0

    # ---- What requests see

    @property
    def state(self) -> EngineState:
        if self._state is EngineState.READY and self._engine.state is not EngineState.READY:
            return EngineState.RESTARTING  # it has just died, and `watch` is about to see it
        return self._state

    @property
    def max_model_len(self) -> int:
        if self._engine.state is EngineState.READY:
            self._max_model_len = self._engine.max_model_len
        return self._max_model_len

    @property
    def concurrency(self) -> int:
        """How many sequences the engine runs at once; known once it was READY."""
        return self._concurrency

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """As an engine's; besides, where the request is not streamed, Restarted when the answer begins from its start.

        Raises:
            ApiError: EngineDied where it cannot be run again, CrashesEngine for a request at fault.
        """
        with self._in_flight.begun(request) as flight:
            del request  # the flight lets go of it, and of its pictures, as soon as it cannot be run again
            if flight.is_poison:
                raise CrashesEngine(POISON)
            while True:
                try:
                    async with self._in_flight.turn_of(flight), aclosing(self._run_once(flight)) as events:
                        async for event in events:
                            yield event
                    self._in_flight.acquit(flight)
                    return
                except EngineDied as error:
                    self._require_another_try(flight, error)
                if flight.told_anything:
                    yield Restarted()

    async def _run_once(self, flight: InFlight) -> AsyncGenerator[Event, None]:
        """The request's events from one life of the engine."""
        await self._until_ready()  # it may have died while the request was prepared
        engine = self._engine
        try:
            async with aclosing(engine.generate(flight.submit(engine))) as events:
                async for event in events:
                    if not flight.is_answering:
                        self._in_flight.answers(flight)
                    yield event
        except EngineDied:
            if engine is self._engine:  # a slow reader may hear of the death of one that has long been replaced
                self._crashed()  # now, while it shows who was on trial
            raise

    def _require_another_try(self, flight: InFlight, error: EngineDied) -> None:
        """Raise why a request may not be run again, if it may not."""
        if flight.is_poison:
            log.error("request %s was in the engine at two crashes and is not run again", flight.id)
            raise CrashesEngine(POISON) from error
        if flight.request is None:
            raise EngineDied(SENT) from error
        if not self._patience.restarts:
            raise error
        self._replayed += 1

    async def _until_ready(self) -> None:
        while self.state is not EngineState.READY:
            if self._state in (EngineState.DEAD, EngineState.STOPPED) or not self._patience.restarts:
                raise EngineNotReady("The engine died and could not be started again; please try another server.")
            changed = self._changed
            with contextlib.suppress(TimeoutError):  # the engine turns READY by itself only where it has just died
                await asyncio.wait_for(changed.wait(), LOOK_EVERY_S)

    # ---- What the house does with it

    async def start(self, report: Report) -> None:
        """Load the model for the first time.

        Raises:
            StartupError: with what happened and what to do next.
        """
        await self._engine.start(report)
        self._max_model_len, self._concurrency = self._engine.max_model_len, self._engine.concurrency
        if self._warm_up is not None:
            report("Warm up", "a picture and a word")
            await self._warm_up(self._engine)
        self._turn(EngineState.READY)

    async def watch(self) -> None:
        """Start the engine again whenever it dies or hangs; runs until it is stopped, or given up.

        Raises:
            StartupError: it died, and was started again as often as it may be.
        """
        while True:
            failure = await self._until_it_fails()
            if self._state is EngineState.STOPPED:
                return
            self._crashed()
            self._counts[failure] += 1
            await self._restart(failure)

    async def stop(self) -> None:
        """End the engine and every process of it. Safe to call at any time, also twice."""
        self._turn(EngineState.STOPPED)
        await self._engine.stop()

    def readings(self) -> list[Reading]:
        """How the engine is, for /metrics."""
        state = self.state
        states = "1 for the state that the engine is in."
        restarts = "Times that the engine was ended and started again, or tried to."
        return [
            *(Reading("ain_engine_state", states, one is state, labels=(("state", one.value),)) for one in EngineState),
            *(
                Reading("ain_engine_restarts", restarts, count, is_counter=True, labels=(("reason", failure),))
                for failure, count in self._counts.items()
            ),
            Reading(
                "ain_requests_replayed",
                "Requests that were run again after the engine died.",
                self._replayed,
                is_counter=True,
            ),
        ]

    # ---- How it is watched

    async def _until_it_fails(self) -> Failure:
        hung = asyncio.create_task(self._until_hung(self._engine))
        try:
            while self.state is EngineState.READY:
                await asyncio.wait({hung}, timeout=LOOK_EVERY_S)
                if hung.done():
                    return "hung" if hung.exception() is None else "died"
            return "died"
        finally:
            hung.cancel()

    async def _until_hung(self, engine: Engine) -> None:
        """Return once the engine gives no sign of life."""
        while True:
            await asyncio.sleep(self._patience.beat_every_s)
            beat = asyncio.create_task(engine.beat())
            try:
                if await self._is_in_vain(beat, engine):
                    return
            finally:
                beat.cancel()

    async def _is_in_vain(self, beat: asyncio.Task[None], engine: Engine) -> bool:
        """Wait for a heartbeat; False when it came, or failed because the engine is dead, which others see."""
        began, before = time.monotonic(), None
        while not (await asyncio.wait({beat}, timeout=min(1.0, self._patience.silent_s / 4)))[0]:
            silent = time.monotonic() - began
            if before is None:
                before = (silent, await engine.activity())
            elif silent >= self._patience.silent_s:
                activity = await engine.activity()
                spent, over = activity.cpu_s - before[1].cpu_s, silent - before[0]
                if activity.stopped or spent < over * IDLE_SHARE or silent >= self._patience.step_s:
                    log.error("the engine has not answered for %.0f s and is taken for hung", silent)
                    return True
                before = (silent, activity)
        if beat.exception() is not None:
            await asyncio.sleep(LOOK_EVERY_S)  # not at full speed, while its death is about to be seen
        return False

    # ---- How it is started again

    def _crashed(self) -> None:
        """The first who sees it finds out who was in the engine, and lets nobody in any more."""
        if self._state is EngineState.READY:
            self._in_flight.crashed(self._engine)
            self._turn(EngineState.RESTARTING)

    async def _restart(self, failure: Failure) -> None:
        await self._clear_away()
        while True:
            self._count_restart(failure)
            number = len(self._restarts)
            log.warning("the engine %s; starting it again (%d of %d)", failure, number, self._patience.restarts)
            await asyncio.sleep(BACKOFF_S[min(number, len(BACKOFF_S)) - 1])
            if self._is_stopped():
                return
            began = time.monotonic()
            self._engine = self._make()
            try:
                await self._engine.start(lambda phase, detail: None)
                if self._warm_up is not None:
                    await self._warm_up(self._engine)
            except (StartupError, ApiError) as error:
                log.error("the engine did not start again: %s", error.message)
                await self._clear_away()
                continue
            if self._is_stopped():  # meanwhile
                await self._clear_away()
                return
            log.warning("the engine is back after %.1f s", time.monotonic() - began)
            self._turn(EngineState.READY)
            return

    def _is_stopped(self) -> bool:
        return self._state is EngineState.STOPPED

    def _count_restart(self, failure: Failure) -> None:
        """Raises StartupError where there were enough."""
        now = time.monotonic()
        while self._restarts and now - self._restarts[0] > WINDOW_S:
            self._restarts.popleft()
        if len(self._restarts) >= self._patience.restarts:
            self._turn(EngineState.DEAD)
            again = f" {len(self._restarts) + 1} times within ten minutes" if self._restarts else ""
            raise StartupError(
                f"The engine {failure}{again}.", "Start the server again; the log holds the engine's last words."
            )
        self._restarts.append(now)

    async def _clear_away(self) -> None:
        """Let nothing of the old engine stay: its processes hold the memory that the new one needs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN_S):
                await self._engine.kill()
                await self._engine.stop()

    def _turn(self, state: EngineState) -> None:
        if self._state is not EngineState.STOPPED:
            self._state = state
        self._changed.set()
        self._changed = asyncio.Event()
