"""The memory budget: first come first served, never more than there is, and every byte comes back once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from server.media.memory import MemoryBudget, Share

pytestmark = pytest.mark.timeout(90)

Asked = asyncio.Task[Share]


async def settle() -> None:
    """Let everything happen that needs no more than its turn on the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def ask(budget: MemoryBudget, *sizes: int) -> list[Asked]:
    """Ask for shares, one after the other, without waiting for any."""
    asked = [asyncio.ensure_future(budget.share(size)) for size in sizes]
    await settle()
    return asked


def inside(asked: list[Asked]) -> list[bool]:
    """Who has a share."""
    return [task.done() and not task.cancelled() for task in asked]


@pytest.mark.parametrize("size", [0, -1])
def test_a_budget_of_nothing_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        MemoryBudget(size)


async def test_shares_are_counted_until_they_are_closed() -> None:
    budget = MemoryBudget(100)
    with await budget.share(60) as first:
        assert (first.size, budget.used) == (60, 60)
        with await budget.share(40):
            assert budget.used == 100
        assert budget.used == 60
    assert budget.used == 0


async def test_a_share_is_given_back_by_a_request_that_fails() -> None:
    budget = MemoryBudget(100)
    with pytest.raises(RuntimeError, match="broken"), await budget.share(60):
        raise RuntimeError("broken")
    assert budget.used == 0


async def test_a_closed_share_gives_nothing_back_again() -> None:
    budget = MemoryBudget(100)
    share = await budget.share(60)
    with await budget.share(40):
        for _ in range(2):
            with share:
                pass
        share.shrink(10)
        assert (share.size, budget.used) == (0, 40)


async def test_what_turns_out_to_be_smaller_returns_the_rest() -> None:
    budget = MemoryBudget(100)
    with await budget.share(60) as share:
        share.shrink(20)
        assert (share.size, budget.used) == (20, 20)
        share.shrink(50)  # what is larger than it has asked for stays as it is
        assert (share.size, budget.used) == (20, 20)
        (next_one,) = await ask(budget, 80)
        with next_one.result():
            assert budget.used == 100
    assert budget.used == 0


async def test_who_does_not_fit_waits_until_enough_is_given_back() -> None:
    budget = MemoryBudget(100)
    first, second = await budget.share(50), await budget.share(50)
    asked = await ask(budget, 80)
    with first:
        pass
    await settle()
    assert (inside(asked), budget.used) == ([False], 50)
    with second:
        pass
    await settle()
    assert (inside(asked), budget.used) == ([True], 80)


async def test_nobody_overtakes_though_there_were_room_for_the_small() -> None:
    budget = MemoryBudget(100)
    first = await budget.share(60)
    asked = await ask(budget, 80, 10, 30)
    assert (inside(asked), budget.used) == ([False, False, False], 60)
    with first:
        pass
    await settle()
    assert (inside(asked), budget.used) == ([True, True, False], 90)
    with asked[0].result():
        pass
    await settle()
    assert (inside(asked), budget.used) == ([True, True, True], 40)


async def test_all_who_fit_are_let_in_at_once() -> None:
    budget = MemoryBudget(100)
    first = await budget.share(100)
    asked = await ask(budget, 30, 30, 30, 30)
    with first:
        pass
    await settle()
    assert (inside(asked), budget.used) == ([True, True, True, False], 90)
    asked[3].cancel()


async def test_who_asks_for_more_than_there_is_gets_all_of_it_alone() -> None:
    budget = MemoryBudget(100)
    first = await budget.share(1)
    giant, small = await ask(budget, 10**12, 1)
    assert inside([giant, small]) == [False, False]
    with first:
        pass
    await settle()
    assert (inside([giant, small]), budget.used) == ([True, False], 100)
    with giant.result() as share:
        assert share.size == 100
    await settle()
    assert (inside([giant, small]), budget.used) == ([True, True], 1)


# ---- Cancelled in every state -----------------------------------------------------------------------


async def test_cancelled_while_it_waits_it_leaves_the_queue() -> None:
    budget = MemoryBudget(100)
    first = await budget.share(60)
    giant, small = await ask(budget, 80, 40)
    giant.cancel()
    await settle()
    assert (inside([small]), budget.used) == ([True], 100)  # nobody is behind the giant any more
    with first, small.result():
        pass
    assert budget.used == 0


async def test_cancelled_in_the_middle_of_the_queue_it_holds_nobody_up() -> None:
    budget = MemoryBudget(100)
    first = await budget.share(100)
    asked = await ask(budget, 40, 100, 40)
    asked[1].cancel()
    await settle()
    with first:
        pass
    await settle()
    assert (inside(asked), budget.used) == ([True, False, True], 80)


def _cancel_then_free(task: Asked, held: Share) -> None:
    task.cancel()
    with held:
        pass


def _free_then_cancel(task: Asked, held: Share) -> None:
    with held:
        pass
    task.cancel()


@pytest.mark.parametrize("both", [_cancel_then_free, _free_then_cancel])
async def test_cancelled_in_the_moment_in_which_its_turn_comes_it_gives_it_up(
    both: Callable[[Asked, Share], None],
) -> None:
    budget = MemoryBudget(100)
    held = await budget.share(100)
    leaving, staying = await ask(budget, 70, 70)
    both(leaving, held)
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await settle()
    assert (inside([staying]), budget.used) == ([True], 70)


async def test_all_are_cancelled_and_nothing_is_left() -> None:
    budget = MemoryBudget(100)
    held = await budget.share(100)
    asked = await ask(budget, 10, 20, 100)
    for task in asked:
        task.cancel()
    with held:
        pass
    await settle()
    assert (inside(asked), budget.used) == ([False, False, False], 0)
    with await budget.share(100):
        assert budget.used == 100


# ---- Any order of events ----------------------------------------------------------------------------


class Crowd(RuleBasedStateMachine):
    """Requests that ask, are cancelled, shrink and end, with the loop running now and then between."""

    tasks: Bundle[Asked] = Bundle("tasks")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.budget = MemoryBudget(100)
        self.asked: list[tuple[Asked, int]] = []
        self.cancelled: set[Asked] = set()
        self.served: list[Asked] = []

    def teardown(self) -> None:
        for task, _ in self.asked:
            task.cancel()
        self.settle()
        for task in self.served:
            task.result().shrink(0)
        assert self.budget.used == 0
        self.loop.close()

    async def _ask(self, size: int) -> Share:
        share = await self.budget.share(size)
        task = asyncio.current_task()
        assert task is not None
        self.served.append(task)
        return share

    @rule(target=tasks, size=st.integers(0, 130))
    def ask(self, size: int) -> Asked:
        task = self.loop.create_task(self._ask(size))
        self.asked.append((task, size))
        return task

    @rule(task=tasks)
    def cancel(self, task: Asked) -> None:
        if task.cancel():
            self.cancelled.add(task)

    @rule(task=tasks, size=st.integers(0, 130))
    def shrink(self, task: Asked, size: int) -> None:
        if task in self.served:
            task.result().shrink(size)

    @rule(task=consumes(tasks))
    def end(self, task: Asked) -> None:
        if task in self.served:
            with task.result():
                pass

    @rule()
    def turn(self) -> None:
        """One round of the loop."""
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()

    @rule()
    def settle(self) -> None:
        for _ in range(10):
            self.turn()
        waiting = [size for task, size in self.asked if not task.done()]
        held = sum(task.result().size for task in self.served)
        assert self.budget.used == held
        assert not waiting or held + min(waiting[0], 100) > 100, "who is first could be let in"
        assert all(task.cancelled() for task in self.cancelled)
        # First come, first served; in which order tasks that have their share go on is for the loop to say.
        stayed = [task for task, _ in self.asked if task not in self.cancelled]
        assert set(self.served) == set(stayed[: len(self.served)])

    @invariant()
    def never_more_than_there_is(self) -> None:
        assert 0 <= self.budget.used <= 100


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
