"""The requests that are in the engine, and which of them may be at fault when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from server.core import GenerationRequest
from server.engine.protocol import Engine
from server.engine.suspicion import POISON, SUSPECT, VAGUE, Fingerprint, Suspicion

KEPT_BYTES = 512 << 20
"""Of pictures of requests whose answer has begun, kept only so that they could be run again."""


class InFlight:
    """One request on its way through the engine, perhaps more than once."""

    def __init__(self, request: GenerationRequest, fingerprint: Fingerprint, suspicion: float) -> None:
        self.id = request.request_id
        self.fingerprint = fingerprint
        self.request: GenerationRequest | None = request
        """None once it cannot be run again."""
        self.is_answering = False
        """Whether it has had a first token from the engine that it is in."""
        self.told_anything = False
        """Whether anything of the answer has been handed on."""
        self.suspect_until_end = suspicion > 0
        """Whether it may bring the engine down later than at its first token; of an earlier one that is not known."""
        self.holds_turn = False
        """Whether it is the one suspect that may be in the engine."""
        self.kept = 0
        """Bytes of pictures that are kept for running it again."""
        self.suspicion = suspicion
        """What is held against it."""
        self.engine: Engine | None = None
        """In which it is."""

    @property
    def is_poison(self) -> bool:
        """Whether it is taken for the cause of crashes."""
        return self.suspicion >= POISON

    def submit(self, engine: Engine) -> GenerationRequest:
        """The request, which now goes into this engine. Raises ValueError where it cannot be run again."""
        if self.request is None:
            raise ValueError(f"{self.id} cannot be run again")
        self.engine, self.is_answering = engine, False
        return self.request


class InFlightRequests:
    """Knows who is in the engine. Belongs to one event loop.

    At a crash those are suspected that had no first token yet, since nearly all that kills an engine does it in the
    prefill; where there are none, all that were in it, but less. Suspects go into the next engine one at a time: if it
    dies again, only one of them can be at fault, and the others are not refused with it.
    """

    def __init__(self) -> None:
        self._in_flight: set[InFlight] = set()
        self._suspicion = Suspicion()
        self._one_suspect = asyncio.Lock()
        self._kept = 0

    @contextmanager
    def begun(self, request: GenerationRequest) -> Iterator[InFlight]:
        """A request's flight, for as long as the block runs."""
        fingerprint = Fingerprint(request)
        flight = InFlight(request, fingerprint, self._suspicion.against(fingerprint))
        del request
        self._in_flight.add(flight)
        try:
            yield flight
        finally:
            self._in_flight.discard(flight)
            self._forget(flight)

    @asynccontextmanager
    async def turn_of(self, flight: InFlight) -> AsyncIterator[None]:
        """Wait until the request may go into the engine: suspects one after the other."""
        if flight.suspicion < SUSPECT:
            yield
            return
        await self._one_suspect.acquire()
        flight.holds_turn = True
        try:
            yield
        finally:
            self._end_turn(flight)

    def answers(self, flight: InFlight) -> None:
        """Its first token is there; where it has had one before, once more."""
        flight.is_answering = True
        if not flight.suspect_until_end:
            self._end_turn(flight)
        if not flight.told_anything and flight.request is not None:
            flight.told_anything = True
            self._keep_or_forget(flight, flight.request)

    def crashed(self, engine: Engine) -> None:
        """An engine has died: suspect who was in it."""
        inside = [flight for flight in self._in_flight if flight.engine is engine]
        on_trial = [flight for flight in inside if flight.holds_turn]
        early = [flight for flight in inside if not flight.is_answering]
        blamed = [flight for flight in on_trial if flight in early] or early or on_trial
        for flight in blamed or inside:
            flight.suspect_until_end |= flight.is_answering
            # What is vague alone never adds up to a proof.
            more = SUSPECT if blamed else min(VAGUE, max(0.0, SUSPECT - flight.suspicion))
            flight.suspicion = self._suspicion.add(flight.fingerprint, more)

    def acquit(self, flight: InFlight) -> None:
        """It has gone through to its end."""
        if flight.suspicion:
            self._suspicion.clear(flight.fingerprint)

    def _keep_or_forget(self, flight: InFlight, request: GenerationRequest) -> None:
        """Of an answer that is streamed nothing can be taken back; others are kept while there is memory for it."""
        size = _bytes_of(request)
        if request.streamed or self._kept + size > KEPT_BYTES:
            flight.request = None
        else:
            flight.kept = size
            self._kept += size

    def _end_turn(self, flight: InFlight) -> None:
        if flight.holds_turn:
            flight.holds_turn = False
            self._one_suspect.release()

    def _forget(self, flight: InFlight) -> None:
        self._kept -= flight.kept
        flight.request, flight.kept = None, 0


def _bytes_of(request: GenerationRequest) -> int:
    return sum(placed.picture.patches.nbytes for placed in request.prompt.pictures)
