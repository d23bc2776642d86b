"""What the house asks of an engine; every engine is these members and nothing more."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from server.core import EngineState, Event, GenerationRequest

Report = Callable[[str, str], None]
"""Called as (phase, detail) while an engine starts, again with new detail as a phase goes on; from any thread."""


class Engine(Protocol):
    """A source of tokens with continuous batching."""

    @property
    def state(self) -> EngineState:
        """READY exactly while `generate` can succeed."""

    @property
    def max_model_len(self) -> int:
        """The longest prompt and answer together, in tokens; known once READY."""

    async def start(self, report: Report) -> None:
        """Load the model. Must not block the event loop.

        Raises:
            StartupError: with what happened and what to do next.
        """

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Event, None]:
        """Stream a request's events: TextDelta in any order of choices, one Finished a choice, one Usage at the end.

        Closing or cancelling the generator frees the request's place in the engine.

        Raises:
            ApiError: EngineDied when the engine has gone, BadRequest for what only the engine can judge.
        """

    async def stop(self) -> None:
        """End the engine and every process of it. Safe to call at any time, also twice."""


class StartupError(Exception):
    """The engine or the model cannot be brought up. `hint` says what the operator can do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
