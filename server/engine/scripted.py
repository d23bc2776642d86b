"""An engine that follows a script instead of a model: for tests and drills of clients and balancers.

It is never chosen by itself: `ain-serve` reaches it only through the explicit `--engine scripted`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from server.core import EngineState, Event, Finished, FinishReason, GenerationRequest, TextDelta, TokenLogprob, Usage
from server.engine.protocol import ProcessActivity, Report, StartupError
from server.errors import EngineDied

LIKELY = -0.25
"""The logarithm of the probability of each word that is played."""


@dataclass(slots=True)
class Script:
    """What the engine plays. All times in seconds."""

    words: tuple[str, ...] = ("Scripted", " answer", " \u0645\u0631\u062d\u0628\u0627", ".")
    """The tokens of one round, played in order."""
    repeat: int = 1
    """How many rounds an answer has."""
    start_delay: float = 0.0
    """Time that `start` takes."""
    first_delay: float = 0.0
    """Time to the first token."""
    delay: float = 0.0
    """Time between tokens."""
    fail_start: bool = False
    """Let `start` fail."""
    fail_after: int | None = None
    """Die after that many tokens of a request; 0 dies before the first."""
    failures: int | None = None
    """Of how many requests the engine dies; None: of each."""
    stall_after: int | None = None
    """Hang after that many tokens of a request, until the engine is killed."""
    hang: bool = False
    """Give no sign of life."""
    max_model_len: int = 4096
    concurrency: int = 1024


class ScriptedEngine:
    """Plays a Script to every request and counts what runs."""

    def __init__(self, script: Script | None = None) -> None:
        self.script = script or Script()
        self.running = 0
        """Requests in the engine at this moment."""
        self.requests: list[GenerationRequest] = []
        """Every request so far, oldest first."""
        self.starts = 0
        """How often it was started: it can be again, and so is also the engine after itself."""
        self.deaths = 0
        """How often it has died of a request."""
        self._state = EngineState.STARTING
        self._killed = asyncio.Event()
        """Set at the end of this life; the next has another."""

    @property
    def state(self) -> EngineState:
        return self._state

    @property
    def max_model_len(self) -> int:
        return self.script.max_model_len

    @property
    def concurrency(self) -> int:
        return self.script.concurrency

    async def start(self, report: Report) -> None:
        self.starts += 1
        self._state = EngineState.STARTING
        report("Start the scripted engine", "")
        await asyncio.sleep(self.script.start_delay)
        if self.script.fail_start:
            raise StartupError("The script says that the engine fails to start.", "Change the script.")
        self._state, self._killed = EngineState.READY, asyncio.Event()

    async def beat(self) -> None:
        if self.script.hang:
            await self._killed.wait()

    async def activity(self) -> ProcessActivity:
        return ProcessActivity(0.0, stopped=False)

    async def kill(self) -> None:
        self.die()

    async def stop(self) -> None:
        self._state = EngineState.STOPPED
        self._killed.set()

    def die(self) -> None:
        """As if the engine process had been killed."""
        self._state = EngineState.DEAD
        self._killed.set()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        self.requests.append(request)
        self.running += 1
        try:
            async for event in self._play(request):
                yield event
        finally:
            self.running -= 1

    async def _play(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        script, sampling = self.script, request.sampling
        words = script.words * script.repeat
        limit = len(words) if sampling.max_tokens is None else min(sampling.max_tokens, len(words))
        reason = FinishReason.STOP if limit == len(words) else FinishReason.LENGTH
        killed = self._killed
        await _pause(script.first_delay, killed)
        for position in range(limit):
            await self._misbehave(script, position, killed)
            for index in range(sampling.n):
                yield TextDelta(index, words[position], _logprobs(words, position, sampling.logprobs))
            await _pause(script.delay, killed)
        await self._misbehave(script, limit, killed)
        for index in range(sampling.n):
            yield Finished(index, reason)
        yield Usage(prompt_tokens=len(request.prompt.token_ids), completion_tokens=limit * sampling.n)

    async def _misbehave(self, script: Script, position: int, killed: asyncio.Event) -> None:
        if script.fail_after == position and self.deaths != script.failures and not killed.is_set():
            self.deaths += 1
            self.die()
        if killed.is_set():
            raise EngineDied("The engine died; the request can be sent again.")
        if script.stall_after == position:
            await killed.wait()
            raise EngineDied("The engine was killed; the request can be sent again.")


def _logprobs(words: tuple[str, ...], position: int, wanted: int | None) -> tuple[TokenLogprob, ...]:
    """Of a word, and as the likeliest in its place that word and those that follow, each less likely by a factor e."""
    if wanted is None:
        return ()
    from_there = [words[(position + step) % len(words)].encode() for step in range(wanted)]
    top = tuple((word, LIKELY - step) for step, word in enumerate(from_there))
    return (TokenLogprob(words[position].encode(), LIKELY, top),)


async def _pause(seconds: float, killed: asyncio.Event) -> None:
    """Wait, but no longer than the engine lives."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(killed.wait(), seconds)
