"""One key floods the server, another asks a little: the other one's first tokens come as if nothing were the matter.

As if the first key kept the server just busy within its means, that is: it has as many requests under way, at any time,
as the engine runs at once, so that none of them waits, and none is refused. More than that a caller cannot be protected
from, for the machine is there to be used. The same against a server that does nothing else is told, too.

Both states take turns, and requests during which the machine itself stood still, or was still at what had piled up
meanwhile, are left out: a 99th percentile is made by the few slowest. The short form has too few for that.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from clients.bench.model import CAPPED_PIXELS, make_model
from clients.bench.peers import MODEL_NAME
from tests.drills.drill import Figure, Plan, at_most, exactly, percentile, told
from tests.drills.load_bodies import Template, mixed, text_template
from tests.drills.load_client import Asked, Load, keep_asking, offer, run
from tests.drills.overload import CONTEXT, MODELS, SEQUENCES, flags
from tests.drills.pauses import Pauses, watched
from tests.serving import serve

FLOOD_KEY: Final = "ain-the-key-of-those-who-flood"
OTHER_KEY: Final = "ain-the-key-of-the-others"
OTHER_RATE: Final = 6.0
"""Requests a second of the other key; each is a stream of `OTHER_TOKENS`."""
OTHER_TOKENS: Final = 16
TIMES: Final = 5
"""So many times what the first key has answered when it is just busy is its flood."""
SETTLE_S: Final = 3.0
AFTERMATH_S: Final = 1.0
"""Of a pause of the machine."""
ROUNDS: Final = 8


@dataclass
class Seen:
    """What the other key saw in one state of the server."""

    asked: list[Asked] = field(default_factory=list)
    """Those that were answered, and not held up by the machine."""
    left_out: int = 0
    """Those that were."""
    failed: int = 0
    goodputs: list[float] = field(default_factory=list)
    """Of the first key, by round."""

    @property
    def goodput(self) -> float:
        """Of the first key, as a mean."""
        return sum(self.goodputs) / len(self.goodputs)

    def add(self, other: Load, pauses: Pauses, goodput: float) -> None:
        """Another round."""
        whole = [one for one in other.asked if one.whole]
        unharmed = [one for one in whole if not pauses.within(one.due - AFTERMATH_S, one.first)]
        self.asked += unharmed
        self.left_out += len(whole) - len(unharmed)
        self.failed += len(other.asked) - len(whole)
        self.goodputs.append(goodput)

    def p(self, share: float) -> float:
        """A percentile of the time to first token, in ms."""
        return 1e3 * percentile([one.first_s for one in self.asked], share)


def fairness(plan: Plan) -> Iterator[Figure]:
    """Idle, then busy and flooded in turns, so that what changes slowly on the machine favours neither."""
    flood = mixed(headers=_with(FLOOD_KEY))
    other = [text_template(seed, OTHER_TOKENS, stream=True, headers=_with(OTHER_KEY)) for seed in range(1000, 1020)]
    keys = ("--api-keys", f"flood={FLOOD_KEY},other={OTHER_KEY}")
    rounds = plan.size(ROUNDS, 1)
    idle, busy, flooded = Seen(), Seen(), Seen()
    with (
        serve(*flags(make_model(MODELS, CAPPED_PIXELS), CONTEXT), *keys, model=MODEL_NAME) as server,
        _pauses(plan) as seen,
    ):
        at = Place(server.address, other, flood, seen, plan.size(10, 5))
        run(keep_asking(server.address, flood, 8, 3.0, at.numbers))
        _round(idle, at, first_key=False)
        for _ in range(rounds):
            _round(busy, at)
            _round(flooded, at, per_second=TIMES * busy.goodput)
    yield told("fairness/ttft-p99-idle", idle.p(0.99), "ms")
    yield told("fairness/ttft-p50-busy", busy.p(0.5), "ms")
    yield told("fairness/ttft-p99-busy", busy.p(0.99), "ms")
    yield told("fairness/ttft-p50-flooded", flooded.p(0.5), "ms")
    yield told("fairness/ttft-p99-flooded", flooded.p(0.99), "ms")
    yield at_most("fairness/growth-p50", flooded.p(0.5) / busy.p(0.5) - 1, plan.mark(0.2, 10))
    yield at_most("fairness/growth-p99", flooded.p(0.99) / busy.p(0.99) - 1, plan.mark(0.2, 50))
    yield told("fairness/growth-p99-against-idle", flooded.p(0.99) / idle.p(0.99) - 1)
    yield told("fairness/flood-goodput-kept", flooded.goodput / busy.goodput)
    yield told("fairness/left-out", busy.left_out + flooded.left_out)
    yield exactly("fairness/failures-of-the-other", idle.failed + busy.failed + flooded.failed, 0)


def _pauses(plan: Plan) -> AbstractContextManager[Pauses]:
    return nullcontext(Pauses()) if plan.short else watched()


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and what the keys ask of it."""

    address: str
    other: Sequence[Template]
    flood: Sequence[Template]
    pauses: Pauses
    seconds: float
    """Of a round, after it has settled."""
    numbers: Iterator[int] = field(default_factory=itertools.count)


def _round(seen: Seen, at: Place, *, first_key: bool = True, per_second: float = 0.0) -> None:
    """One state for some seconds; the first key offers `per_second`, or keeps the engine just full."""
    whole_s = SETTLE_S + at.seconds

    async def work() -> tuple[Load, Load | None]:
        trickle = offer(at.address, at.other, OTHER_RATE, whole_s, at.numbers)
        if not first_key:
            return await trickle, None
        others = (
            offer(at.address, at.flood, per_second, whole_s + 1, at.numbers)
            if per_second
            else keep_asking(at.address, at.flood, SEQUENCES, whole_s + 1, at.numbers)
        )
        return await asyncio.gather(trickle, others)

    trickle, others = run(work())
    seen.add(_ended(trickle), at.pauses, others.within(SETTLE_S).goodput if others is not None else 0.0)


def _ended(load: Load) -> Load:
    """The load without its beginning, and without what was still under way when it ended."""
    within = load.within(SETTLE_S)
    asked: tuple[Asked, ...] = tuple(one for one in within.asked if one.due >= within.began)
    return Load(asked, within.began, within.ended, within.client_cpu_s)


def _with(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}
