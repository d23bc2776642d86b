"""How much memory prepared pictures may take altogether; requests wait for their share of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from types import TracebackType
from typing import Protocol


class HeldBytes(Protocol):
    """Counts the bytes of files that requests hold, as they come."""

    def take(self, size: int, tenant: str) -> None:
        """Count more bytes. Raises ApiError where there is no memory for them."""

    def give_back(self, size: int, tenant: str) -> None:
        """Count off bytes that nobody needs any more."""


class MemoryBudget:
    """Shares of a number of bytes, given out first come first served. Belongs to one event loop."""

    def __init__(self, size: int) -> None:
        """Raises ValueError for a budget of nothing."""
        if size < 1:
            raise ValueError("the media memory must be at least one byte")
        self.size = size
        self.used = 0
        """Bytes given out at this moment."""
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def share(self, size: int) -> Share:
        """Wait for `size` bytes; close what comes back. Who asks for more than there is gets all of it, alone."""
        size = min(size, self.size)
        if self._queue or self.used + size > self.size:
            turn = asyncio.get_running_loop().create_future()
            self._queue.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.cancelled():
                    with contextlib.suppress(ValueError):  # passed over by who let others in meanwhile
                        self._queue.remove((size, turn))
                    self._let_in()
                else:
                    self.give_back(size)
                raise
        else:
            self.used += size
        return Share(self, size)

    def give_back(self, size: int) -> None:
        """Return bytes, and let in whoever fits now."""
        self.used -= size
        self._let_in()

    def _let_in(self) -> None:
        while self._queue and self.used + self._queue[0][0] <= self.size:
            size, turn = self._queue.popleft()
            if not turn.done():
                self.used += size
                turn.set_result(None)


class Share:
    """Some bytes of a budget, as a context."""

    def __init__(self, budget: MemoryBudget, size: int) -> None:
        self._budget = budget
        self.size = size

    def shrink(self, size: int) -> None:
        """Keep `size` bytes and return the rest, once it is known how much it takes."""
        if size < self.size:
            self._budget.give_back(self.size - size)
            self.size = size

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.shrink(0)
