"""What a drill is: something that goes wrong on purpose, and figures that say whether the server bore it.

A drill lives in a module of its own and is entered in `DRILLS` of `__main__.py`:

    def kill_engine(plan: Plan) -> Iterator[Figure]:
        with serve("--model", "demo") as server:
            ...
            yield at_most("kill/refused-within", seconds, 2.0, "s")

Figures are named drill/figure; the name never changes, so that runs can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of a drill is done. The short form runs with the tests: the same faults, fewer and for less long."""

    short: bool = False

    def size(self, whole: int, short: int) -> int:
        """A number of requests, clients, or seconds."""
        return short if self.short else whole

    def mark(self, whole: float, short: float) -> float:
        """The mark of a figure that is a matter of speed: tests run on busy machines, and a few seconds show little."""
        return short if self.short else whole


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a drill found, and the mark that it must reach."""

    name: str
    value: float
    mark: str
    """In words, such as `<= 2 s`; empty for a number that only informs."""
    holds: bool
    unit: str = ""
    most: float = -math.inf
    """The mark as a number, where the value must not be larger."""

    def bears(self, times: float) -> bool:
        """Whether it holds on a machine that is so many times slower than one with nothing else to do."""
        return self.holds or (self.unit == "s" and self.value <= times * self.most)

    def row(self) -> dict[str, object]:
        """As `build/drills.json` has it."""
        value = self.value if math.isfinite(self.value) else None
        return {"drill": self.name, "figure": value, "unit": self.unit, "mark": self.mark, "holds": self.holds}


Drill = Callable[[Plan], Iterable[Figure]]


def at_most(name: str, value: float, mark: float, unit: str = "") -> Figure:
    """A figure that must not be larger than its mark."""
    return Figure(name, value, f"<= {mark:g} {unit}".strip(), value <= mark, unit, mark)


def at_least(name: str, value: float, mark: float, unit: str = "") -> Figure:
    """A figure that must not be smaller than its mark."""
    return Figure(name, value, f">= {mark:g} {unit}".strip(), value >= mark, unit)


def exactly(name: str, value: float, mark: float, unit: str = "") -> Figure:
    """A figure that must be its mark."""
    return Figure(name, value, f"= {mark:g} {unit}".strip(), value == mark, unit)


def told(name: str, value: float, unit: str = "") -> Figure:
    """A figure without a mark: for comparison."""
    return Figure(name, value, "", True, unit)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile, `share` in 0..1; not a number where there are no values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
