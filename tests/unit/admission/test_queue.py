"""The queue: whose turn it is, and who can best be sent away."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from server.admission.queue import AdmissionRequest, FairQueue, Waiting

ASKS = st.builds(
    AdmissionRequest, caller=st.sampled_from("abc"), tokens=st.just(0), priority=st.integers(-1, 1), flex=st.booleans()
)


def waiting(caller: str = "a", priority: int = 0, flex: bool = False) -> Waiting:
    return Waiting(AdmissionRequest(caller, priority=priority, flex=flex), asyncio.Future(loop=LOOP))


LOOP = asyncio.new_event_loop()
LOOP.close()  # nothing runs here: the futures are only looked at


def served(queue: FairQueue, places: Counter[str] | None = None) -> list[Waiting]:
    """Everybody, in the order of their turns, where whoever is served stays."""
    places, order = Counter(places), []
    while (one := queue.next(places)) is not None:
        assert queue.remove(one)
        places[one.ask.caller] += 1
        order.append(one)
    return order


def test_an_empty_queue_has_nobody() -> None:
    queue = FairQueue()
    assert (queue.size, queue.next({}), queue.last()) == (0, None, None)


@given(st.lists(ASKS))
def test_everybody_has_a_turn_and_only_one(asks: list[AdmissionRequest]) -> None:
    queue = FairQueue()
    everybody = [Waiting(ask, asyncio.Future(loop=LOOP)) for ask in asks]
    for one in everybody:
        queue.add(one)
    assert queue.size == len(everybody)
    order = served(queue)
    assert queue.size == 0
    assert sorted(map(id, order)) == sorted(map(id, everybody))
    assert not any(queue.remove(one) for one in everybody)


@given(st.lists(ASKS))
def test_flex_comes_last_and_each_callers_own_go_by_priority_then_age(asks: list[AdmissionRequest]) -> None:
    queue = FairQueue()
    for ask in asks:
        queue.add(Waiting(ask, asyncio.Future(loop=LOOP)))
    order = [one.ask for one in served(queue)]
    assert [ask.flex for ask in order] == sorted(ask.flex for ask in order)
    for caller in "abc":
        for flex in (False, True):
            own = [ask for ask in order if (ask.caller, ask.flex) == (caller, flex)]
            came = [ask for ask in asks if (ask.caller, ask.flex) == (caller, flex)]
            assert own == sorted(came, key=lambda ask: ask.priority)


@given(st.lists(st.sampled_from("abc")), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3)))
def test_the_next_place_goes_to_the_caller_that_has_the_fewest(callers: list[str], has: dict[str, int]) -> None:
    queue, places = FairQueue(), Counter(has)
    for caller in callers:
        queue.add(waiting(caller))
    left = Counter(callers)
    while (one := queue.next(places)) is not None:
        caller = one.ask.caller
        assert places[caller] == min(places[other] for other in left)
        queue.remove(one)
        places[caller] += 1
        left[caller] -= 1
        left += Counter()  # without those that have nobody left


OF_ONE_KIND = st.builds(
    AdmissionRequest, caller=st.sampled_from("abc"), priority=st.integers(-1, 1), flex=st.just(False)
)


@given(st.lists(OF_ONE_KIND, max_size=12), OF_ONE_KIND)
def test_who_is_ahead_is_who_is_served_before_where_all_have_as_much(
    asks: list[AdmissionRequest], newcomer: AdmissionRequest
) -> None:
    """At most: a caller's own less urgent requests, and a tie between callers, are counted as if they came first."""
    queue = FairQueue()
    for ask in asks:
        queue.add(Waiting(ask, asyncio.Future(loop=LOOP)))
    ahead = queue.ahead_of(newcomer)
    last = Waiting(newcomer, asyncio.Future(loop=LOOP))
    queue.add(last)
    place = served(queue).index(last)
    assert place <= ahead
    if not any(ask.priority > newcomer.priority for ask in asks if ask.caller == newcomer.caller):
        assert ahead - place <= 2, "two other callers, with one tie each"


def test_ahead_of_a_flex_request_is_everybody_who_is_not() -> None:
    queue = FairQueue()
    for caller in "aab":
        queue.add(waiting(caller))
    queue.add(waiting("c", flex=True))
    assert queue.ahead_of(AdmissionRequest("a", flex=True)) == 4
    assert queue.ahead_of(AdmissionRequest("c")) == 2


@given(st.lists(ASKS, min_size=1))
def test_the_last_of_the_longest_line_can_best_be_sent_away_flex_first(asks: list[AdmissionRequest]) -> None:
    queue = FairQueue()
    for ask in asks:
        queue.add(Waiting(ask, asyncio.Future(loop=LOOP)))
    last = queue.last()
    assert last is not None
    assert last.ask.flex == any(ask.flex for ask in asks)
    lines = Counter(ask.caller for ask in asks if ask.flex == last.ask.flex)
    assert lines[last.ask.caller] == max(lines.values())
    assert last.ask.priority == max(
        ask.priority for ask in asks if (ask.caller, ask.flex) == (last.ask.caller, last.ask.flex)
    )


def test_clearing_names_those_who_still_wait() -> None:
    queue, gone, there = FairQueue(), waiting(), waiting("b", flex=True)
    queue.add(gone)
    queue.add(there)
    gone.turn.cancel()
    assert list(queue.clear()) == [there]
    assert (queue.size, queue.next({})) == (0, None)
