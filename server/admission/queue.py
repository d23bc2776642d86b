"""Who waits for a place, and whose turn it is."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """What a request wants of the house."""

    caller: str
    tokens: int = 0
    """Its prompt tokens, as well as they are known yet."""
    answers: int = 1
    priority: int = 0
    """Lower goes first among the requests of the same caller."""
    flex: bool = False
    """Whether it stands back behind all others."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A request in the queue; `turn` is done when it may enter."""

    ask: AdmissionRequest
    turn: asyncio.Future[None]


@dataclass(slots=True)
class _Line:
    """What one caller has waiting, the most urgent first."""

    heap: list[tuple[int, int, Waiting]] = field(default_factory=list)
    served: int = 0
    """When this caller was last served, as a number that only grows."""


class FairQueue:
    """The next place goes to the caller that has the fewest, among equals to whom was served least recently.

    So a caller that floods the queue only lengthens its own line (max-min fairness over places). A caller's own
    requests go by priority, then by age. Those that are `flex` go when no others wait.
    """

    def __init__(self) -> None:
        self._lines: dict[bool, dict[str, _Line]] = {False: {}, True: {}}
        self._count = 0
        self.size = 0
        """How many wait."""

    def add(self, waiting: Waiting) -> None:
        """Put a request at the end of its caller's line, or before what is less urgent there."""
        self._count += 1
        line = self._lines[waiting.ask.flex].setdefault(waiting.ask.caller, _Line(served=self._count))
        heapq.heappush(line.heap, (waiting.ask.priority, self._count, waiting))
        self.size += 1

    def next(self, places: Mapping[str, int]) -> Waiting | None:
        """Whose turn it is, where each caller has so many `places`; it stays in the queue."""
        for lines in self._lines.values():
            if lines:
                caller = min(lines, key=lambda one: (places[one], lines[one].served))
                return lines[caller].heap[0][2]
        return None

    def remove(self, waiting: Waiting) -> bool:
        """Take a request out of the queue; False where it is in it no more."""
        lines = self._lines[waiting.ask.flex]
        line = lines.get(waiting.ask.caller)
        if line is None:
            return False
        for place, (_, _, other) in enumerate(line.heap):  # nearly always the first
            if other is waiting:
                self._take(line, place)
                self.size -= 1
                if not line.heap:
                    del lines[waiting.ask.caller]
                return True
        return False

    def ahead_of(self, ask: AdmissionRequest) -> int:
        """How many are served before a request that comes now, if nobody else comes and all callers have as much."""
        lines = self._lines[ask.flex]
        own = len(lines[ask.caller].heap) if ask.caller in lines else 0
        ahead = own + sum(min(len(line.heap), own + 1) for caller, line in lines.items() if caller != ask.caller)
        return ahead + (sum(len(line.heap) for line in self._lines[False].values()) if ask.flex else 0)

    def last(self) -> Waiting | None:
        """Who can best be sent away: the last in the longest line; it stays in the queue."""
        for lines in reversed(self._lines.values()):
            if lines:
                longest = max(lines.values(), key=lambda line: len(line.heap))
                return max(longest.heap)[2]
        return None

    def clear(self) -> Iterator[Waiting]:
        """Empty the queue; yields who was in it and still waits."""
        lines = [line for lines in self._lines.values() for line in lines.values()]
        self._lines, self.size = {False: {}, True: {}}, 0
        return (waiting for line in lines for _, _, waiting in line.heap if not waiting.turn.done())

    def _take(self, line: _Line, place: int) -> None:
        self._count += 1
        line.served = self._count
        if place == 0:
            heapq.heappop(line.heap)
        else:
            del line.heap[place]
            heapq.heapify(line.heap)
