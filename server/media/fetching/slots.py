"""Slots for fetches, shared by tenants so that whoever comes has one soon, however slow the hosts of the others are."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairSlots:
    """`total` slots, of which a tenant takes one more only while it has fewer than are free. One event loop's.

    One tenant alone takes half of them, a second half of the rest, and so on (the dynamic threshold of Choudhury and
    Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998, with alpha = 1). Of those who wait
    the tenant with the fewest slots is next, and among its own the first come.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def slot(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a slot, and hold it while the context lasts."""
        if tenant in self._waiting or not self._may_take(tenant):
            await self._wait(tenant)
        else:
            self._take(tenant)
        try:
            yield
        finally:
            self._give_back(tenant)

    def _may_take(self, tenant: str) -> bool:
        return self._held[tenant] < self._free

    def _take(self, tenant: str) -> None:
        self._free -= 1
        self._held[tenant] += 1

    def _give_back(self, tenant: str) -> None:
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._let_in()

    async def _wait(self, tenant: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._forget(tenant, turn)
            else:  # it had just been let in
                self._give_back(tenant)
            raise

    def _let_in(self) -> None:
        while self._waiting:
            tenant = min(self._waiting, key=lambda waiting: self._held[waiting])
            if not self._may_take(tenant):
                return
            turn = self._waiting[tenant][0]
            self._forget(tenant, turn)
            if not turn.done():
                self._take(tenant)
                turn.set_result(None)

    def _forget(self, tenant: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(tenant)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[tenant]
