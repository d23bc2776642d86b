"""What the house asks of an engine; every engine is these members and nothing more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Protocol

from server.core import EngineState, Event, GenerationRequest

Report = Callable[[str, str], None]
"""Called as (phase, detail) while an engine starts, again with new detail as a phase goes on; from any thread."""


class Generator(Protocol):
    """A source of tokens with continuous batching, as requests see it."""

    @property
    def state(self) -> EngineState:
        """READY exactly while `generate` can succeed."""

    @property
    def max_model_len(self) -> int:
        """The longest prompt and answer together, in tokens; known once READY."""

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Stream a request's events: TextDelta in any order of choices, one Finished a choice, one Usage at the end.

        Closing or cancelling the generator frees the request's place in the engine.

        Raises:
            ApiError: EngineDied when the engine has gone, BadRequest for what only the engine can judge.
        """


@dataclass(frozen=True, slots=True)
class ProcessActivity:
    """What the processes of an engine do, seen from outside."""

    cpu_s: float
    """CPU time that they have used altogether, in seconds."""
    stopped: bool
    """Whether one of them is stopped or has ended, so that the others wait for it in vain."""


class Engine(Generator, Protocol):
    """One life of an engine: started once, and never READY again after it has died."""

    @property
    def concurrency(self) -> int:
        """How many sequences it runs at once; known once READY."""

    async def start(self, report: Report) -> None:
        """Load the model. Must not block the event loop.

        Raises:
            StartupError: with what happened and what to do next.
        """

    async def beat(self) -> None:
        """Return once every part of the engine has answered, between two steps of its work.

        Raises whatever; only returning is a sign of life.
        """

    async def activity(self) -> ProcessActivity:
        """What its processes do, for when it does not answer."""

    async def kill(self) -> None:
        """End its processes without asking, and every `generate` with EngineDied."""

    async def stop(self) -> None:
        """End the engine and every process of it. Safe to call at any time, also twice."""


class StartupError(Exception):
    """The engine or the model cannot be brought up. `hint` says what the operator can do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
