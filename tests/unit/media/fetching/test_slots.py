"""Slots for fetches: whoever comes finds one, and nobody's wait is lost."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.media.fetching.slots import FairSlots


class House:
    """Tasks that hold a slot until they are told to end."""

    def __init__(self, total: int) -> None:
        self.slots = FairSlots(total)
        self.inside: Counter[str] = Counter()
        self.tasks: list[tuple[str, asyncio.Task[None]]] = []
        self._ends: dict[asyncio.Task[None], asyncio.Event] = {}

    async def ask(self, tenant: str) -> None:
        end = asyncio.Event()
        task = asyncio.create_task(self._hold(tenant, end))
        self._ends[task] = end
        self.tasks.append((tenant, task))
        await settle()

    async def _hold(self, tenant: str, end: asyncio.Event) -> None:
        async with self.slots.slot(tenant):
            self.inside[tenant] += 1
            try:
                await end.wait()
            finally:
                self.inside[tenant] -= 1

    async def end(self, number: int, *, cancelled: bool = False) -> None:
        """End one of the tasks: it was inside, or is told to leave as soon as it is; or cancel it wherever it is."""
        _, task = self.tasks.pop(number)
        if cancelled:
            task.cancel()
        else:
            self._ends[task].set()
        await settle()

    async def end_all(self) -> None:
        for _, task in self.tasks:
            self._ends[task].set()
        await asyncio.gather(*self._ends, return_exceptions=True)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_tenant_takes_half_the_next_half_of_the_rest_and_so_on() -> None:
    house = House(32)
    for tenant in "abcde":
        for _ in range(40):
            await house.ask(tenant)
    assert dict(house.inside) == {"a": 16, "b": 8, "c": 4, "d": 2, "e": 1}
    await house.end_all()
    assert house.inside.total() == 0


async def test_who_has_fewest_is_next_and_among_its_own_the_first() -> None:
    house = House(4)
    for tenant in ("a", "a", "b", "a", "b", "c"):
        await house.ask(tenant)
    assert dict(house.inside) == {"a": 2, "b": 1, "c": 1}
    await house.ask("d")
    await house.end(0)
    assert house.inside["d"] == 1
    await house.end_all()


@pytest.mark.parametrize("total", [1, 2, 3])
async def test_even_one_slot_is_given_in_turn(total: int) -> None:
    house = House(total)
    for _ in range(5):
        await house.ask("a")
    for left in range(5, 0, -1):
        assert house.inside["a"] == min(left, max(1, total // 2) if total < 3 else 2)
        await house.end(0)
    assert house.inside.total() == 0
    await house.end_all()


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.booleans()), max_size=40),
)
def test_whatever_comes_and_goes_nothing_is_lost(total: int, steps: list[tuple[str, int, bool]]) -> None:
    async def run() -> None:
        house = House(total)
        for tenant, leave, cancelled in steps:
            await house.ask(tenant)
            if leave < len(house.tasks) and leave:
                await house.end(leave, cancelled=cancelled)
            assert house.inside.total() <= total
            waiting = len(house.tasks) - house.inside.total()
            least = min((house.inside[one] for one, _ in house.tasks), default=0)
            assert not waiting or least >= total - house.inside.total() or house.inside.total() > 0
        await asyncio.wait_for(house.end_all(), 10)
        async with house.slots.slot("anybody"):
            assert house.inside.total() == 0

    asyncio.run(run())
