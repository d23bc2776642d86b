"""Caches bounded in bytes, and work that several wait for together."""

from __future__ import annotations

import asyncio
import gc
from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.media.cache import ByteCache, SingleFlight

pytestmark = pytest.mark.timeout(20)


def holding(max_bytes: int, **entries: int) -> ByteCache[str, bytes]:
    """A cache into which values of so many bytes were put, in this order."""
    cache: ByteCache[str, bytes] = ByteCache(max_bytes, len)
    for key, size in entries.items():
        cache.put(key, bytes(size))
    return cache


def kept(cache: ByteCache[str, bytes], keys: str) -> str:
    """Which of some keys of one letter each it still has."""
    return "".join(key for key in keys if cache.get(key) is not None)


# ---- ByteCache --------------------------------------------------------------------------------------


def test_what_was_put_is_got_and_its_bytes_are_counted() -> None:
    cache = holding(100, a=30)
    cache.put("b", b"value")
    assert cache.get("b") == b"value"
    assert cache.get("c") is None
    assert cache.bytes == 35


def test_the_bound_is_exact() -> None:
    assert kept(holding(100, a=50, b=50), "ab") == "ab"
    assert kept(holding(100, a=50, b=51), "ab") == "b"


def test_what_was_used_least_recently_goes_first() -> None:
    cache = holding(100, a=30, b=30, c=30)
    cache.get("a")
    cache.put("d", bytes(30))
    assert kept(cache, "abcd") == "acd"


def test_one_large_value_makes_room_for_itself() -> None:
    assert kept(holding(100, a=30, b=30, c=30, d=95), "abcd") == "d"


def test_what_is_larger_than_the_whole_cache_is_not_kept_and_drives_nothing_out() -> None:
    cache = holding(100, a=30, b=101)
    assert kept(cache, "ab") == "a"


def test_what_has_become_too_large_does_not_leave_its_old_value_behind() -> None:
    cache = holding(100, a=30)
    cache.put("a", bytes(101))
    assert cache.get("a") is None
    assert cache.bytes == 0


def test_a_new_value_takes_the_place_of_the_old() -> None:
    cache = holding(100, a=90)
    cache.put("a", bytes(20))
    assert (cache.get("a"), cache.bytes) == (bytes(20), 20)


@pytest.mark.parametrize("size", [1, 100])
def test_a_cache_of_no_bytes_keeps_nothing(size: int) -> None:
    cache = holding(0, a=size)
    assert (cache.get("a"), cache.bytes) == (None, 0)


def test_what_is_dropped_is_gone_and_may_be_dropped_again() -> None:
    cache = holding(100, a=30, b=30)
    for _ in range(2):
        cache.drop("a")
    assert (kept(cache, "ab"), cache.bytes) == ("b", 30)


def test_hits_misses_and_bytes_can_be_read_by_the_name_of_the_cache() -> None:
    cache = holding(100, a=7)
    for key in "aabaccc":
        cache.get(key)
    readings = {reading.name: reading for reading in cache.readings("mine")}
    assert {name.removeprefix("ain_media_cache_"): reading.value for name, reading in readings.items()} == {
        "hits": 3,
        "misses": 4,
        "bytes": 7,
    }
    assert all(reading.labels == (("cache", "mine"),) for reading in readings.values())


@settings(deadline=None)
@given(
    st.integers(0, 30),
    st.lists(st.tuples(st.sampled_from(["get", "put", "drop"]), st.sampled_from("abcdef"), st.integers(1, 20))),
)
def test_it_holds_what_a_plain_list_by_last_use_would(max_bytes: int, moves: list[tuple[str, str, int]]) -> None:
    cache = holding(max_bytes)
    expected: OrderedDict[str, bytes] = OrderedDict()
    for move, key, size in moves:
        if move == "get":
            assert cache.get(key) == expected.get(key)
            if key in expected:
                expected.move_to_end(key)
        elif move == "drop":
            cache.drop(key)
            expected.pop(key, None)
        else:
            cache.put(key, bytes(size))
            expected.pop(key, None)
            if size <= max_bytes:
                expected[key] = bytes(size)
            while sum(map(len, expected.values())) > max_bytes:
                expected.popitem(last=False)
        assert cache.bytes == sum(map(len, expected.values())) <= max_bytes
    assert kept(cache, "abcdef") == "".join(sorted(expected))


# ---- Together ---------------------------------------------------------------------------------------


class Work:
    """Work that goes on until the test says how it ends, and that knows what became of it."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def __call__(self) -> str:
        self.begun += 1
        try:
            return await asyncio.shield(self.end)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def settle() -> None:
    """Let everything happen that needs no more than its turn on the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


async def waiting(together: SingleFlight[str, str], key: str, work: Work, number: int = 1) -> list[asyncio.Task[str]]:
    """So many callers that have begun to wait."""
    tasks = [asyncio.ensure_future(together.run(key, work)) for _ in range(number)]
    await settle()
    return tasks


async def test_who_asks_for_the_same_waits_for_the_same() -> None:
    together, work = SingleFlight[str, str](), Work()
    callers = await waiting(together, "key", work, 2)
    late = await waiting(together, "key", Work())
    work.end.set_result("done")
    assert await asyncio.gather(*callers, *late) == ["done"] * 3
    assert work.begun == 1


async def test_other_keys_are_other_work() -> None:
    together, one, other = SingleFlight[str, str](), Work(), Work()
    first, second = *await waiting(together, "one", one), *await waiting(together, "other", other)
    other.end.set_result("other")
    assert await second == "other"
    assert not first.done()
    one.end.set_result("one")
    assert await first == "one"


async def test_work_that_is_done_is_not_remembered() -> None:
    together = SingleFlight[str, str]()
    for number in range(2):
        work = Work()
        work.end.set_result(f"{number}")
        assert await together.run("key", work) == f"{number}"
        assert work.begun == 1


async def test_an_error_reaches_all_who_wait_and_none_who_come_later() -> None:
    together, work = SingleFlight[str, str](), Work()
    callers = await waiting(together, "key", work, 3)
    work.end.set_exception(ValueError("broken"))
    for caller in callers:
        with pytest.raises(ValueError, match="broken"):
            await caller
    again = Work()
    again.end.set_result("mended")
    assert await together.run("key", again) == "mended"


@pytest.mark.parametrize("leaving", [0, 1, 2])
async def test_the_work_goes_on_while_anybody_waits(leaving: int) -> None:
    together, work = SingleFlight[str, str](), Work()
    callers = await waiting(together, "key", work, 3)
    gone = callers.pop(leaving)
    gone.cancel()
    await settle()
    assert gone.cancelled()
    work.end.set_result("done")
    assert await asyncio.gather(*callers) == ["done", "done"]
    assert work.cancelled == 0


async def test_the_work_is_cancelled_with_the_last_who_waits() -> None:
    together, work = SingleFlight[str, str](), Work()
    callers = await waiting(together, "key", work, 3)
    for number, caller in enumerate(callers):
        assert work.cancelled == 0, number
        caller.cancel()
        await settle()
    assert work.cancelled == 1
    assert all(caller.cancelled() for caller in callers)


async def test_the_work_is_cancelled_when_all_leave_at_once() -> None:
    together, work = SingleFlight[str, str](), Work()
    callers = await waiting(together, "key", work, 3)
    for caller in callers:
        caller.cancel()
    await settle()
    assert work.cancelled == 1


async def test_who_comes_after_a_cancellation_begins_anew() -> None:
    """Also where the cancelled work takes its time to end."""
    together = SingleFlight[str, str]()
    hold = asyncio.Event()

    async def reluctant() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            await hold.wait()
        return "never"

    first = asyncio.ensure_future(together.run("key", reluctant))
    await settle()
    first.cancel()
    await settle()
    work = Work()
    second, third = *await waiting(together, "key", work), *await waiting(together, "key", work)
    hold.set()  # the old work ends now, and must not take the new one's place away
    await settle()
    fourth = asyncio.ensure_future(together.run("key", work))
    await settle()
    work.end.set_result("new")
    assert await asyncio.gather(second, third, fourth) == ["new"] * 3
    assert work.begun == 1


async def test_an_error_that_nobody_waits_for_any_more_disturbs_nobody() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    together = SingleFlight[str, str]()

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("broken while it was tidied up") from None
        return "never"

    caller = asyncio.ensure_future(together.run("key", stubborn))
    await settle()
    caller.cancel()
    await settle()
    assert caller.cancelled()
    gc.collect()  # it is then that asyncio complains
    assert complaints == []


async def test_a_deadline_of_one_caller_does_not_end_the_work_of_another() -> None:
    together, work = SingleFlight[str, str](), Work()
    (patient,) = await waiting(together, "key", work)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(together.run("key", work), 0.01)
    work.end.set_result("done")
    assert await patient == "done"
