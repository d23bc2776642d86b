"""Who may enter, and when: before any costly work, and before a reply has begun.

    at the door     the house is full, the key has its quota, or the wait would be too long  ->  refused at once
    in the queue    no place is free; places go to the caller that has the fewest            ->  refused at its deadline
    inside          a ticket: places for its answers, and its prompt tokens until the first token is there

A ticket is taken before anything is fetched or decoded and travels with the reply's stream until that ends, on every
path.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from server.admission.controller import TtftController
from server.admission.pace import Pace, Rate
from server.admission.queue import AdmissionRequest, FairQueue, Waiting
from server.core import Reading
from server.errors import Draining, Overloaded, RateLimited

ARRIVES_WITHIN_S = 1.0
"""From a request's head to the end of its body, usually; whoever sends slowly has no place meanwhile."""


@dataclass(frozen=True, slots=True)
class GateLimits:
    """What there is room for. Callers that have less than their share are not held to the last two."""

    max_requests: int = 256
    """In the house, those that wait included."""
    max_per_caller: int | None = None
    """Of these, of one key."""
    max_wait_s: float = 30.0
    """In the queue."""
    max_running: int | None = None
    """Answers at work at once; None: as many as the engine runs.

    With more of them some would wait in the engine, which lets in whoever came first: before a caller of few requests
    would then stand a part of the flood.
    """
    max_prefill_tokens: int = 1 << 17
    """Prompt tokens of requests that have no first token yet. A single request may have more."""


def _ignore(seconds: float) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Observe:
    """Who is told what each request has lived through; all in seconds."""

    waited: Callable[[float], None] = _ignore
    """From when it asked to when it was let in."""
    started: Callable[[float], None] = _ignore
    """From when it asked to its first token."""


class Arrival:
    """A request that is only coming: it counts as in the house until it asks to enter, so that a burst of requests does
    not find one free place, each of them, and is read for nothing.

    One whose body takes longer than `ARRIVES_WITHIN_S` keeps nobody out any more. Closing it twice does no harm.
    """

    def __init__(self, gone: Callable[[], None]) -> None:
        self._gone: Callable[[], None] | None = gone
        self._timer = asyncio.get_running_loop().call_later(ARRIVES_WITHIN_S, self.close)

    def close(self) -> None:
        """It enters now, or has gone."""
        self._timer.cancel()
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()


class Ticket:
    """A request's place in the house. Belongs to one gate; closing it twice does no harm."""

    def __init__(self, gate: Gate, ask: AdmissionRequest, asked: float) -> None:
        self.ask = ask
        self.asked = asked
        """When it asked to enter, by the loop's clock."""
        self.tokens = ask.tokens
        """Prompt tokens that it counts for; 0 once its first token is there."""
        self._gate: Gate | None = gate
        self._submitted = asked
        self._is_prefilled = False

    def charge(self, tokens: int) -> None:
        """Count its prompt tokens exactly, now that they are known."""
        if self._gate is not None and not self._is_prefilled:
            self._gate.recount(self, tokens)

    def submitted(self) -> None:
        """The engine has it: from here on TTFT is the engine's."""
        self._submitted = asyncio.get_running_loop().time()

    def started(self) -> None:
        """Its first token is there: the prefill is over."""
        if self._gate is not None and not self._is_prefilled:
            self._is_prefilled = True
            self._gate.prefilled(self, self._submitted)

    def close(self) -> None:
        """Give the place back."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave(self)


class Gate:
    """Counts requests in and out. Belongs to one event loop."""

    def __init__(
        self,
        limits: GateLimits | None = None,
        controller: TtftController | None = None,
        observe: Observe | None = None,
    ) -> None:
        """With a `controller`, the bound on prompt tokens follows the TTFT that it wants."""
        self.limits = limits or GateLimits()
        self.observe = observe or Observe()
        self.draining = False
        self.running = 0
        """Answers at work."""
        self.prefill_tokens = 0
        """Prompt tokens without a first token."""
        self.max_running = self.limits.max_running or self.limits.max_requests
        self._controller = controller
        self._queue = FairQueue()
        self._pace = Pace()
        self._ended = Rate()
        self._of: Counter[str] = Counter()
        """Answers at work, by caller."""
        self._inside: Counter[str] = Counter()
        """Requests in the house, by caller."""

    @property
    def inside(self) -> int:
        """Requests in the house at this moment, those that wait included."""
        return self._inside.total()

    @property
    def max_prefill_tokens(self) -> int:
        """The bound on prompt tokens, as it is now."""
        return self.limits.max_prefill_tokens if self._controller is None else self._controller.limit

    def fit_to_engine(self, sequences: int) -> None:
        """Take as many as the engine runs at once, unless the operator has said how many."""
        if self.limits.max_running is None:
            self.max_running = sequences

    def require_room(self, caller: str = "") -> None:
        """Refuse at once what could not enter, before anything of it is read.

        Raises:
            Overloaded: the house is full, and the caller has its share of it; or the wait would be too long.
            Draining: the server is shutting down.
            RateLimited: the caller has as many requests in the house as its key allows.
        """
        if self.draining:
            raise Draining
        most, has = self.limits.max_per_caller, self._inside[caller]
        if most is not None and has >= most:
            raise RateLimited(f"This key has {most} requests in the server, as many as it may; please try again.")
        if self.inside >= self.limits.max_requests and not self._is_below_share(caller, self._inside, 1):
            raise Overloaded(
                f"The server is working on {self.inside} requests and takes no more; please try again.",
                retry_after_s=self._pace.wait_s(self._queue.size, self._now()),
            )
        if self._queue.size and not self._is_below_share(caller, self._of, 1, self.max_running):
            self._require_short_wait(AdmissionRequest(caller))

    def arrive(self, caller: str = "") -> Arrival:
        """Count a request whose head has come, as far as there is room for it; it is to `enter` when it is known.

        Raises:
            Overloaded, Draining, RateLimited: see `require_room`.
        """
        self.require_room(caller)
        self._inside[caller] += 1
        return Arrival(partial(self._gone, caller))

    async def enter(self, ask: AdmissionRequest) -> Ticket:
        """Take a place, or wait for one. Cancelling gives up.

        Raises:
            Overloaded, Draining, RateLimited: see `require_room`; or the wait is, or would be, too long.
        """
        self.require_room(ask.caller)
        if self.inside >= self.limits.max_requests:
            self._make_room(ask)
        self._inside[ask.caller] += 1
        asked = self._now()
        try:
            if not self._may_enter(ask):
                await self._wait(ask)
        except BaseException:
            self._gone(ask.caller)
            raise
        self.observe.waited(self._now() - asked)
        return Ticket(self, ask, asked)

    def recount(self, ticket: Ticket, tokens: int) -> None:
        """Let a ticket count for other `tokens` than before."""
        self.prefill_tokens += tokens - ticket.tokens
        ticket.tokens = tokens
        self._let_in()

    def prefilled(self, ticket: Ticket, submitted: float) -> None:
        """A ticket's first token is there; the engine got it when the loop's clock said `submitted`."""
        now = self._now()
        self.prefill_tokens -= ticket.tokens
        ticket.tokens = 0
        self.observe.started(now - ticket.asked)
        if self._controller is not None:
            self._controller.observe(now - submitted, now, wanted_more=self._queue.size > 0)
        self._let_in()

    def leave(self, ticket: Ticket) -> None:
        """A ticket's request has ended."""
        self.prefill_tokens -= ticket.tokens
        self.running -= ticket.ask.answers
        self._of[ticket.ask.caller] -= ticket.ask.answers
        self._gone(ticket.ask.caller)
        self._ended.happened(self._now())
        self._let_in()

    @property
    def utilization(self) -> float:
        """Work at hand as a share of what can be done at once; over 1 where some wait."""
        return (self.running + self._queue.size) / self.max_running

    @property
    def ended_a_second(self) -> float:
        """Requests that leave the house, lately."""
        return self._ended.a_second(self._now())

    def drain(self) -> None:
        """Let nobody in from here on; who waits is told to go elsewhere."""
        self.draining = True
        for waiting in self._queue.clear():
            waiting.turn.set_exception(Draining())

    def readings(self) -> list[Reading]:
        """How full the house is, for /metrics."""
        return [
            Reading("ain_requests_inside", "Requests in the house, those that wait included.", self.inside),
            Reading("ain_requests_waiting", "Requests that wait for a place.", self._queue.size),
            Reading("ain_requests_running", "Answers at work: fetching, decoding, or in the engine.", self.running),
            Reading("ain_running_limit", "Answers that may be at work at once.", self.max_running),
            Reading("ain_prefill_tokens", "Prompt tokens that wait for a first token.", self.prefill_tokens),
            Reading("ain_prefill_tokens_limit", "How many may.", self.max_prefill_tokens),
        ]

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _may_enter(self, ask: AdmissionRequest) -> bool:
        """Let it in where nobody has to wait for it."""
        if (self._queue.size == 0 and self._fits(ask)) or self._has_less_than_its_share(ask):
            self._let(ask)
            return True
        return False

    def _fits(self, ask: AdmissionRequest) -> bool:
        if self.running and self.running + ask.answers > self.max_running:
            return False
        return not self.prefill_tokens or self.prefill_tokens + ask.tokens <= self.max_prefill_tokens

    def _has_less_than_its_share(self, ask: AdmissionRequest) -> bool:
        """Whether others hold places that are this caller's by right.

        Then it does not wait for them to finish: the house takes it at once, over its limits, and lets the others wait
        until it is below them again.
        """
        return not ask.flex and self._is_below_share(ask.caller, self._of, ask.answers, self.max_running)

    def _is_below_share(self, caller: str, places: Counter[str], more: int, most: int | None = None) -> bool:
        """Whether with `more` places the caller has no more than each, were all of them shared out evenly."""
        others = sum(1 for other, count in places.items() if count > 0 and other != caller)
        return others > 0 and places[caller] + more <= (most or self.limits.max_requests) // (others + 1)

    def _make_room(self, ask: AdmissionRequest) -> None:
        """Send somebody away who waits, for a caller that has less than its share; never for a request that can wait.

        Raises:
            Overloaded: it can.
        """
        if ask.flex:
            raise Overloaded("The server is full; a request of the flex tier waits until it is not.")
        last = self._queue.last()
        if last is not None and self._take_out(last) and not last.turn.done():
            last.turn.set_exception(Overloaded("The server is full, and others have waited less; please try again."))

    def _let(self, ask: AdmissionRequest) -> None:
        self.running += ask.answers
        self._of[ask.caller] += ask.answers
        self.prefill_tokens += ask.tokens

    def _require_short_wait(self, ask: AdmissionRequest) -> None:
        expected = self._pace.wait_s(self._queue.ahead_of(ask), self._now())
        if expected > self.limits.max_wait_s:
            raise Overloaded(
                f"The server is full: a place would be free in some {expected:.0f} s; please try again later.",
                retry_after_s=expected - self.limits.max_wait_s,
            )

    async def _wait(self, ask: AdmissionRequest) -> None:
        self._require_short_wait(ask)
        waiting = Waiting(ask, asyncio.get_running_loop().create_future())
        self._queue.add(waiting)
        self._let_in()  # it may be its turn before those who wait for more than there is
        try:
            async with asyncio.timeout(self.limits.max_wait_s):
                await waiting.turn
        except BaseException as error:
            self._give_up(waiting)
            if isinstance(error, TimeoutError):
                raise Overloaded(
                    f"No place was free within {self.limits.max_wait_s:g} s; please try again.",
                    retry_after_s=self._pace.wait_s(self._queue.size, self._now()),
                ) from None
            raise

    def _give_up(self, waiting: Waiting) -> None:
        if self._take_out(waiting):
            self._let_in()  # perhaps the others waited only for what it wanted
            return
        if waiting.turn.cancelled() or waiting.turn.exception() is not None:
            return
        # Let in, in the very moment in which it gave up.
        self.running -= waiting.ask.answers
        self._of[waiting.ask.caller] -= waiting.ask.answers
        self.prefill_tokens -= waiting.ask.tokens
        self._let_in()

    def _gone(self, caller: str) -> None:
        self._inside[caller] -= 1
        if not self._inside[caller]:  # keys are many, and most of them silent
            del self._inside[caller], self._of[caller]

    def _let_in(self) -> None:
        while (waiting := self._queue.next(self._of)) is not None and self._fits(waiting.ask):
            self._queue.remove(waiting)
            if waiting.turn.cancelled():  # it gives up, and has not been told yet
                continue
            self._let(waiting.ask)
            self._pace.handed_out(self._now(), more_wait=self._queue.size > 0)
            waiting.turn.set_result(None)

    def _take_out(self, waiting: Waiting) -> bool:
        """Take a request out of the queue that has got no place; False where it is in it no more."""
        was_in_it = self._queue.remove(waiting)
        if not self._queue.size:
            self._pace.forget()
        return was_in_it
