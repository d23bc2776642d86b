"""Keeps the time to first token (TTFT) where the operator wants it, by bounding what waits in the engine.

Additive increase, multiplicative decrease (Chiu and Jain 1989), as in TCP, over the prompt tokens that have no first
token yet: what an engine has to prefill is what a new request waits for. The whole time of a request says nothing here,
since long answers take long.
"""

from __future__ import annotations

import math

DECREASE = 0.7
STEPS = 32
"""Steps of increase from nothing to the most."""
WINDOW_S = 1.0
"""The bound is judged over at least so long, and at least the target: what is changed now shows then."""
ENOUGH = 4
"""Requests that a window must have."""
TOO_SLOW = 0.9
"""The percentile of TTFT that is held to the target."""


class TtftController:
    """A bound on prompt tokens that follows TTFT. Times are seconds of one clock."""

    def __init__(self, target_s: float, *, least: int, most: int) -> None:
        """The bound starts at `most`, and stays between `least` and `most` tokens."""
        self.target_s = target_s
        self.limit = most
        """Prompt tokens that may wait for their first token."""
        self._least, self._most = min(least, most), most
        self._window: list[float] = []
        self._wanted_more = False
        self._ends: float | None = None

    def observe(self, ttft_s: float, now: float, *, wanted_more: bool) -> None:
        """A request had its first token `ttft_s` after the engine got it; `wanted_more`: others wait outside."""
        self._window.append(ttft_s)
        self._wanted_more |= wanted_more
        if self._ends is None:
            self._ends = now + max(WINDOW_S, self.target_s)
        if now >= self._ends and len(self._window) >= ENOUGH:
            self._judge()
            self._window.clear()
            self._wanted_more, self._ends = False, None

    def _judge(self) -> None:
        if _percentile(self._window, TOO_SLOW) > self.target_s:
            self.limit = max(self._least, int(self.limit * DECREASE))
        elif self._wanted_more:
            self.limit = min(self._most, self.limit + self._most // STEPS)


def _percentile(values: list[float], share: float) -> float:
    """By nearest rank."""
    return sorted(values)[math.ceil(share * len(values)) - 1]
