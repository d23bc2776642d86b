"""How fast places become free, and so how long a wait would be; how many requests end in a second."""

from __future__ import annotations

import math
from collections import deque

REMEMBERED = 64
"""Places handed out that the estimate rests on."""
AT_LEAST = 8
"""Before so many were handed out nothing is known."""
LATELY_S = 10.0
"""What happened so long ago counts a third (1/e) of what happens now."""


class Pace:
    """Remembers when places were handed out while others waited. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=REMEMBERED)

    def handed_out(self, now: float, *, more_wait: bool) -> None:
        """A place went to somebody who waited; with nobody left waiting, the gap that follows says nothing."""
        if more_wait:
            self._times.append(now)
        else:
            self.forget()

    def forget(self) -> None:
        """Nobody waits any more: how long it was until somebody does again says nothing."""
        self._times.clear()

    def wait_s(self, ahead: int, now: float) -> float:
        """How long somebody waits who has so many before them; 0 while nothing is known."""
        if len(self._times) < AT_LEAST:
            return 0.0
        # Up to now, so that a pace that has come to a halt counts as slower and slower.
        return (ahead + 1) * (now - self._times[0]) / len(self._times)


class Rate:
    """How often something happens in a second, lately. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._at = 0.0

    def happened(self, now: float) -> None:
        """It happened."""
        self._weight, self._at = self._weight_at(now) + 1, now

    def a_second(self, now: float) -> float:
        """As an average that forgets exponentially."""
        return self._weight_at(now) / LATELY_S

    def _weight_at(self, now: float) -> float:
        return self._weight * math.exp((self._at - now) / LATELY_S)
