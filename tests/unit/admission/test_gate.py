"""The gate: who may enter, whose turn it is, and that every place is given back once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from server.admission import gate as admission_gate
from server.admission.controller import TtftController
from server.admission.gate import Gate, GateLimits, Observe, Ticket
from server.admission.pace import AT_LEAST
from server.admission.queue import AdmissionRequest
from server.errors import ApiError, Draining, Overloaded, RateLimited, Unavailable

Entering = asyncio.Task[Ticket]


async def settle() -> None:
    """Let everybody go as far as they can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def come(gate: Gate, caller: str = "one", **ask: Any) -> Entering:
    """Somebody comes to the door, and is in, waits, or has been refused when this returns."""
    entering = asyncio.create_task(gate.enter(AdmissionRequest(caller, **ask)))
    await settle()
    return entering


async def enter(gate: Gate, caller: str = "one", **ask: Any) -> Ticket:
    """Somebody is let in at once."""
    entering = await come(gate, caller, **ask)
    assert entering.done(), "it has to wait"
    return entering.result()


async def in_order(gate: Gate, open_tickets: list[Ticket], waiting: dict[str, Entering]) -> list[str]:
    """Close one ticket after the other; who comes in, by name."""
    came: list[str] = []
    while len(came) < len(waiting):
        open_tickets.pop(0).close()
        await settle()
        for name, entering in waiting.items():
            if entering.done() and name not in came:
                came.append(name)
                open_tickets.append(entering.result())
    return came


def gate(max_running: int | None = None, **limits: Any) -> Gate:
    return Gate(GateLimits(max_running=max_running, **limits))


def counts(gate: Gate) -> tuple[int, int, int]:
    return gate.inside, gate.running, gate.prefill_tokens


async def full(**limits: Any) -> tuple[Gate, Ticket]:
    """A house whose only place is taken."""
    house = gate(1, **limits)
    return house, await enter(house)


# ---- Places


async def test_a_ticket_takes_a_place_until_it_is_closed() -> None:
    house = gate(2)
    ticket = await enter(house, tokens=30)
    assert counts(house) == (1, 1, 30)
    ticket.close()
    assert counts(house) == (0, 0, 0)


async def test_closing_a_ticket_twice_gives_one_place_back() -> None:
    house = gate(2)
    first, second = await enter(house), await enter(house)
    first.close()
    first.close()
    assert counts(house) == (1, 1, 0)
    second.close()
    assert counts(house) == (0, 0, 0)


async def test_a_request_takes_a_place_for_each_of_its_answers() -> None:
    house = gate(4)
    ticket = await enter(house, answers=3)
    assert house.running == 3
    waiting = await come(house, answers=2)
    assert not waiting.done()
    ticket.close()
    await settle()
    assert waiting.result().ask.answers == 2
    assert house.running == 2


async def test_who_finds_no_place_waits_for_one_and_gets_it() -> None:
    house, ticket = await full()
    waiting = await come(house)
    assert not waiting.done()
    assert counts(house) == (2, 1, 0)
    ticket.close()
    await settle()
    waiting.result().close()
    assert counts(house) == (0, 0, 0)


async def test_a_request_with_more_answers_than_there_are_places_gets_in_when_alone() -> None:
    house = gate(2)
    first = await enter(house)
    waiting = await come(house, answers=5)
    assert not waiting.done()
    first.close()
    await settle()
    waiting.result().close()
    assert counts(house) == (0, 0, 0)


async def test_the_engine_says_how_many_places_there_are_unless_the_operator_does() -> None:
    by_engine, by_operator = gate(), gate(7)
    for house in (by_engine, by_operator):
        house.fit_to_engine(16)
    assert (by_engine.max_running, by_operator.max_running) == (16, 7)


# ---- Refused at the door


async def test_a_full_house_refuses_at_once_and_says_when_to_come_back() -> None:
    house, ticket = await full(max_requests=2)
    waiting = await come(house)
    with pytest.raises(Overloaded) as caught:
        await house.enter(AdmissionRequest("one"))
    with pytest.raises(Overloaded):
        house.require_room("one")
    assert caught.value.headers() == {"retry-after": "1", "x-should-retry": "true"}
    assert house.inside == 2
    ticket.close()
    await settle()
    waiting.result().close()
    (await enter(house)).close()
    assert counts(house) == (0, 0, 0)


async def test_a_key_has_no_more_requests_in_the_house_than_its_quota() -> None:
    house = gate(8, max_per_caller=2)
    tickets = [await enter(house), await enter(house)]
    with pytest.raises(RateLimited) as caught:
        await house.enter(AdmissionRequest("one"))
    assert (caught.value.status, caught.value.headers()["retry-after"]) == (429, "1")
    other = await enter(house, "other")
    tickets[0].close()
    (await enter(house)).close()
    for ticket in (tickets[1], other):
        ticket.close()
    assert counts(house) == (0, 0, 0)


async def test_who_waits_counts_towards_the_quota_of_its_key() -> None:
    house, ticket = await full(max_per_caller=2)
    waiting = await come(house)
    with pytest.raises(RateLimited):
        house.require_room("one")
    waiting.cancel()
    await settle()
    house.require_room("one")
    ticket.close()


async def test_a_request_that_is_only_coming_takes_up_room_until_it_enters_or_is_gone() -> None:
    house = gate(4, max_requests=2)
    first, second = house.arrive("one"), house.arrive("one")
    assert counts(house) == (2, 0, 0)
    with pytest.raises(Overloaded):
        house.arrive("one")
    first.close()
    first.close()
    ticket = await enter(house)
    assert counts(house) == (2, 1, 0)
    second.close()
    ticket.close()
    assert counts(house) == (0, 0, 0)


async def test_a_request_that_is_coming_counts_towards_the_quota_of_its_key() -> None:
    house = gate(4, max_per_caller=1)
    arrival = house.arrive("one")
    with pytest.raises(RateLimited):
        house.arrive("one")
    house.arrive("other").close()
    arrival.close()
    house.arrive("one").close()


async def test_a_request_that_does_not_come_to_its_end_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_gate, "ARRIVES_WITHIN_S", 0.02)
    house = gate(1, max_requests=1)
    arrival = house.arrive("one")
    await asyncio.sleep(0.05)
    ticket = await enter(house)
    arrival.close()
    assert counts(house) == (1, 1, 0)
    ticket.close()
    assert counts(house) == (0, 0, 0)


# ---- How long a wait would be


async def slow_house(max_wait_s: float, gap: float = 0.02) -> tuple[Gate, Ticket, Entering]:
    """A full house that is known to hand out a place every `gap` seconds, and one who waits in it."""
    house = gate(1, max_wait_s=30.0)
    ticket, waiting = await enter(house), [await come(house) for _ in range(AT_LEAST + 1)]
    for entering in waiting[:-1]:
        await asyncio.sleep(gap)
        ticket.close()
        await settle()
        ticket = entering.result()
    house.limits = GateLimits(max_wait_s=max_wait_s, max_running=1)
    return house, ticket, waiting[-1]


async def test_a_wait_that_would_be_too_long_is_refused_at_once() -> None:
    house, ticket, waiting = await slow_house(max_wait_s=0.03)
    with pytest.raises(Overloaded, match="a place would be free in some"):
        await asyncio.wait_for(house.enter(AdmissionRequest("one")), 0.01)
    assert house.inside == 2
    waiting.cancel()
    ticket.close()
    await settle()
    assert counts(house) == (0, 0, 0)


async def test_a_wait_that_would_be_too_long_is_refused_before_anything_of_the_request_is_read() -> None:
    house, ticket, waiting = await slow_house(max_wait_s=0.03)
    with pytest.raises(Overloaded, match="a place would be free in some"):
        house.require_room("one")
    house.limits = GateLimits(max_wait_s=10.0, max_running=1)
    house.require_room("one")
    waiting.cancel()
    await settle()
    house.limits = GateLimits(max_wait_s=0.0, max_running=1)
    house.require_room("one")
    ticket.close()


async def test_a_wait_that_is_short_enough_is_begun() -> None:
    house, ticket, waiting = await slow_house(max_wait_s=10.0)
    second = await come(house)
    assert not second.done()
    tickets = [ticket]
    assert await in_order(house, tickets, {"first": waiting, "second": second}) == ["first", "second"]


async def test_what_was_learnt_is_forgotten_when_nobody_waits_any_more() -> None:
    """Else the gap since then counts as a wait, and nobody would ever be let wait again."""
    house, ticket, waiting = await slow_house(max_wait_s=0.1)
    waiting.cancel()
    await asyncio.sleep(1.2)
    again = await come(house)
    assert not again.done()
    ticket.close()
    await settle()
    again.result().close()


async def test_nobody_waits_longer_than_they_may() -> None:
    house, ticket = await full(max_wait_s=0.05)
    with pytest.raises(Overloaded, match=r"No place was free within 0.05 s") as caught:
        await house.enter(AdmissionRequest("one", tokens=7))
    assert caught.value.retry_after == 1
    assert counts(house) == (1, 1, 0)
    ticket.close()
    assert counts(house) == (0, 0, 0)


# ---- Prompt tokens


async def test_prompt_tokens_are_bounded_until_the_first_token() -> None:
    house = gate(10, max_prefill_tokens=100)
    first = await enter(house, tokens=60)
    waiting = await come(house, tokens=60)
    assert not waiting.done()
    first.started()
    await settle()
    assert waiting.done()
    assert counts(house) == (2, 2, 60)
    for ticket in (first, waiting.result()):
        ticket.close()
    assert counts(house) == (0, 0, 0)


async def test_tokens_are_counted_exactly_once_they_are_known() -> None:
    house = gate(10, max_prefill_tokens=100)
    first = await enter(house, tokens=90)
    waiting = await come(house, tokens=40)
    first.charge(70)
    await settle()
    assert not waiting.done()
    assert house.prefill_tokens == 70
    first.charge(60)
    await settle()
    assert waiting.done()
    assert house.prefill_tokens == 100
    for ticket in (first, waiting.result()):
        ticket.close()
    assert counts(house) == (0, 0, 0)


async def test_a_ticket_that_has_started_or_is_closed_is_charged_nothing_more() -> None:
    house = gate(10)
    started, closed = await enter(house, tokens=10), await enter(house, tokens=10)
    started.started()
    started.started()
    started.charge(50)
    closed.close()
    closed.charge(50)
    closed.started()
    assert house.prefill_tokens == 0
    started.close()
    assert counts(house) == (0, 0, 0)


async def test_one_request_with_more_tokens_than_the_bound_gets_in_when_alone() -> None:
    house = gate(10, max_prefill_tokens=100)
    small = await enter(house, tokens=10)
    large = await come(house, tokens=1000)
    assert not large.done()
    small.started()
    await settle()
    assert large.done()
    late = await come(house, tokens=1)
    assert not late.done()
    late.cancel()


async def test_the_bound_is_the_controllers_where_there_is_one() -> None:
    controller = TtftController(1.0, least=10, most=100)
    house = Gate(GateLimits(max_running=10, max_prefill_tokens=1000), controller)
    assert house.max_prefill_tokens == 100
    controller.limit = 20
    first = await enter(house, tokens=15)
    assert not (await come(house, tokens=15)).done()
    first.close()


async def test_a_large_request_at_the_head_holds_nobody_up_once_it_gives_up() -> None:
    house = gate(10, max_prefill_tokens=100)
    inside = await enter(house, tokens=60)
    large, small = await come(house, tokens=90), await come(house, tokens=10)
    assert not small.done()
    large.cancel()
    await settle()
    assert small.done()
    for ticket in (inside, small.result()):
        ticket.close()
    assert counts(house) == (0, 0, 0)


# ---- Fairness


async def test_a_caller_who_floods_the_house_does_not_make_another_wait() -> None:
    house = gate(4, max_requests=10)
    flood = [await come(house, "flood") for _ in range(10)]
    assert counts(house) == (10, 4, 0)
    (await enter(house, "other")).close()
    assert [type(entering.exception()) for entering in flood if entering.done()] == [type(None)] * 4 + [Overloaded]
    for entering in flood:
        entering.cancel()


async def test_a_caller_over_its_share_waits_its_turn_but_not_behind_the_flood() -> None:
    house = gate(2)
    tickets = [await enter(house, "flood"), await enter(house, "other")]
    waiting = {f"flood-{index}": await come(house, "flood") for index in range(5)}
    waiting["other"] = await come(house, "other")
    came = await in_order(house, tickets, waiting)
    assert came.index("other") <= 1


async def test_places_alternate_between_callers_who_all_want_many() -> None:
    house = gate(2)
    tickets = [await enter(house, "a"), await enter(house, "b")]
    waiting = {f"{caller}{index}": await come(house, caller) for caller in "ab" for index in range(4)}
    came = await in_order(house, tickets, waiting)
    for served in range(1, len(came)):
        ahead = [name[0] for name in came[:served]]
        assert abs(ahead.count("a") - ahead.count("b")) <= 1


async def test_a_full_house_sends_away_the_last_of_the_longest_line_for_who_has_less_than_its_share() -> None:
    house = gate(1, max_requests=4)
    ticket = await enter(house, "flood")
    waiting = [await come(house, "flood") for _ in range(3)]
    newcomer = await come(house, "other")
    assert not newcomer.done()
    assert [entering.done() for entering in waiting] == [False, False, True]
    with pytest.raises(Overloaded, match="others have waited less"):
        waiting[2].result()
    assert house.inside == 4
    tickets = [ticket]
    left = {"other": newcomer, "first": waiting[0], "second": waiting[1]}
    # Asked first, served first, among callers that have as many places.
    assert set(await in_order(house, tickets, left)) == set(left)


async def test_among_requests_of_one_caller_the_lower_priority_goes_first_then_the_older() -> None:
    house, ticket = await full()
    waiting = {
        name: await come(house, priority=priority)
        for name, priority in [("late", 5), ("first", 0), ("second", 0), ("urgent", -1)]
    }
    assert await in_order(house, [ticket], waiting) == ["urgent", "first", "second", "late"]


async def test_priority_says_nothing_between_callers() -> None:
    house = gate(2)
    tickets = [await enter(house, "a"), await enter(house, "b")]
    waiting = {
        "a1": await come(house, "a", priority=5),
        "b1": await come(house, "b", priority=-5),
        "b2": await come(house, "b", priority=-5),
    }
    tickets.sort(key=lambda ticket: ticket.ask.caller)
    assert (await in_order(house, tickets, waiting))[0] == "a1"


async def test_flex_requests_go_when_no_others_wait() -> None:
    house, ticket = await full()
    waiting = {
        "flex": await come(house, "a", flex=True, priority=-9),
        "flex too": await come(house, "b", flex=True),
        "a": await come(house, "a"),
        "b": await come(house, "b"),
    }
    assert set((await in_order(house, [ticket], waiting))[:2]) == {"a", "b"}


async def test_a_flex_request_has_no_share_that_others_make_room_for() -> None:
    house = gate(2)
    await enter(house, "flood")
    await enter(house, "flood")
    flex = await come(house, "other", flex=True)
    assert not flex.done()
    assert (await come(house, "other")).done()
    flex.cancel()


async def test_a_large_flex_request_that_waits_holds_up_nobody_else() -> None:
    house = gate(10, max_prefill_tokens=100)
    await enter(house, tokens=60)
    flex = await come(house, tokens=90, flex=True)
    assert (await come(house, tokens=30)).done()
    assert not flex.done()
    flex.cancel()


# ---- Giving up


async def test_who_is_cancelled_while_waiting_leaves_nothing_behind() -> None:
    house, ticket = await full()
    waiting, next_one = await come(house, tokens=5), await come(house)
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    assert counts(house) == (2, 1, 0)
    ticket.close()
    await settle()
    next_one.result().close()
    assert counts(house) == (0, 0, 0)


async def test_a_place_that_comes_in_the_moment_of_cancelling_goes_to_the_next() -> None:
    """First the place, then the cancelling, before the one who waits has seen either."""
    house, ticket = await full()
    waiting, next_one = await come(house, tokens=5), await come(house, tokens=3)
    ticket.close()
    waiting.cancel()
    await settle()
    assert waiting.cancelled()
    assert counts(house) == (1, 1, 3)
    next_one.result().close()
    assert counts(house) == (0, 0, 0)


async def test_cancelling_in_the_moment_in_which_a_place_comes_lets_the_next_one_in() -> None:
    """First the cancelling, then the place."""
    house, ticket = await full()
    waiting, next_one = await come(house, tokens=5), await come(house, tokens=3)
    waiting.cancel()
    ticket.close()
    await settle()
    assert waiting.cancelled()
    assert counts(house) == (1, 1, 3)
    next_one.result().close()
    assert counts(house) == (0, 0, 0)


async def test_who_gives_up_just_as_it_is_sent_away_harms_nobody() -> None:
    house = gate(1, max_requests=4)
    ticket = await enter(house, "flood")
    waiting = [await come(house, "flood") for _ in range(3)]
    newcomer = asyncio.create_task(house.enter(AdmissionRequest("other")))
    waiting[2].cancel()  # which it learns only after the newcomer has come
    await settle()
    assert waiting[2].cancelled()
    assert not newcomer.done()
    for entering in (*waiting[:2], newcomer):
        entering.cancel()
    await settle()
    ticket.close()
    assert counts(house) == (0, 0, 0)


# ---- Draining


async def test_a_draining_house_lets_nobody_in_however_empty() -> None:
    house = gate(1)
    house.drain()
    with pytest.raises(Unavailable) as caught:
        await house.enter(AdmissionRequest("one"))
    assert caught.value.code == "draining"
    with pytest.raises(Draining):
        house.require_room()
    assert counts(house) == (0, 0, 0)


async def test_who_is_inside_may_leave_while_the_house_drains() -> None:
    house, ticket = await full()
    house.drain()
    ticket.close()
    assert counts(house) == (0, 0, 0)


async def test_who_waits_when_the_house_begins_to_drain_is_told_at_once() -> None:
    house, ticket = await full()
    waiting = [await come(house), await come(house, "other", flex=True)]
    house.drain()
    await settle()
    for entering in waiting:
        assert isinstance(entering.exception(), Draining)
    assert counts(house) == (1, 1, 0)
    ticket.close()
    assert counts(house) == (0, 0, 0)


async def test_draining_and_cancelling_in_one_moment_gives_each_place_back_once() -> None:
    house, ticket = await full()
    first, second = await come(house), await come(house)
    first.cancel()
    house.drain()
    second.cancel()
    await settle()
    assert (first.done(), second.done()) == (True, True)
    for entering in (first, second):
        with suppress(Draining, asyncio.CancelledError):
            entering.result()
    ticket.close()
    assert counts(house) == (0, 0, 0)


# ---- What is told


async def test_waits_and_first_tokens_are_told() -> None:
    waited: list[float] = []
    started: list[float] = []
    house = Gate(GateLimits(max_running=1), observe=Observe(waited.append, started.append))
    ticket = await enter(house)
    waiting = await come(house)
    await asyncio.sleep(0.05)
    ticket.close()
    await settle()
    second = waiting.result()
    second.submitted()
    second.started()
    second.started()
    second.close()
    assert [seconds >= 0.04 for seconds in waited] == [False, True]
    assert len(started) == 1
    assert started[0] >= 0.04


async def test_the_controller_is_told_what_the_engine_took_and_not_the_wait() -> None:
    told: list[tuple[float, bool]] = []

    class Listening(TtftController):
        def observe(self, ttft_s: float, now: float, *, wanted_more: bool) -> None:
            told.append((ttft_s, wanted_more))

    house = Gate(GateLimits(max_running=1), Listening(1.0, least=1, most=100))
    ticket = await enter(house)
    waiting = await come(house)
    await asyncio.sleep(0.5)
    ticket.submitted()
    ticket.started()
    waiting.cancel()
    await settle()
    ticket.close()
    [(ttft, wanted_more)] = told
    assert ttft < 0.4
    assert wanted_more


async def test_the_readings_are_the_counts() -> None:
    house = gate(1, max_prefill_tokens=50)
    ticket = await enter(house, tokens=20)
    waiting = await come(house)
    told = {reading.name: reading.value for reading in house.readings()}
    assert told == {
        "ain_requests_inside": 2,
        "ain_requests_waiting": 1,
        "ain_requests_running": 1,
        "ain_running_limit": 1,
        "ain_prefill_tokens": 20,
        "ain_prefill_tokens_limit": 50,
    }
    waiting.cancel()
    await settle()
    ticket.close()
    assert [reading.value for reading in house.readings()[:3]] == [0, 0, 0]


async def test_balancers_are_told_how_busy_the_house_is_with_those_that_wait() -> None:
    house = gate(2)
    assert (house.utilization, house.ended_a_second) == (0.0, 0.0)
    tickets = [await enter(house), await enter(house)]
    assert house.utilization == 1.0
    waiting = await come(house)
    assert house.utilization == 1.5
    tickets[0].close()
    await settle()
    assert house.utilization == 1.0
    assert house.ended_a_second > 0.0
    for ticket in (tickets[1], waiting.result()):
        ticket.close()
    assert house.utilization == 0.0


# ---- Whatever happens

CALLERS = st.sampled_from(("one", "two", "three"))
TOKENS = st.integers(0, 60)


class AnyDay(RuleBasedStateMachine):
    """Everything that can happen at the door, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.entering: list[Entering] = []
        self.tickets: list[Ticket] = []
        self.house = Gate()

    @initialize(
        running=st.integers(1, 4), requests=st.integers(1, 8), tokens=st.integers(1, 100), quota=st.none() | st.just(3)
    )
    def open(self, running: int, requests: int, tokens: int, quota: int | None) -> None:
        self.house = Gate(
            GateLimits(
                max_running=running, max_requests=requests, max_prefill_tokens=tokens, max_per_caller=quota,
                max_wait_s=1e9,
            )
        )  # fmt: skip

    @rule(caller=CALLERS, tokens=TOKENS, answers=st.integers(1, 3), priority=st.integers(-1, 1), flex=st.booleans())
    def somebody_comes(self, caller: str, tokens: int, answers: int, priority: int, flex: bool) -> None:
        house, ask = self.house, AdmissionRequest(caller, tokens, answers, priority, flex)
        before = house.running
        had = [ticket.ask.answers for ticket in self.tickets if ticket.ask.caller == caller]
        callers = len({ticket.ask.caller for ticket in self.tickets} | {caller})
        self.run(lambda: self.entering.append(self.loop.create_task(house.enter(ask))))
        if self.tickets and self.tickets[-1].ask is ask:
            fits = not before or before + answers <= house.max_running
            assert fits or sum(had) + answers <= house.max_running // callers

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), tokens=TOKENS)
    def somebody_is_counted(self, data: st.DataObject, tokens: int) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        self.run(lambda: ticket.charge(tokens))

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def somebody_has_a_first_token(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.tickets))
        self.run(ticket.submitted, ticket.started)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), twice=st.booleans())
    def somebody_leaves(self, data: st.DataObject, twice: bool) -> None:
        ticket = self.taken(data)
        self.run(*[ticket.close] * (1 + twice))

    @precondition(lambda self: self.entering)
    @rule(data=st.data())
    def somebody_gives_up(self, data: st.DataObject) -> None:
        waiting = data.draw(st.sampled_from(self.entering))
        self.run(waiting.cancel)

    @precondition(lambda self: self.entering and self.tickets)
    @rule(data=st.data(), leaves_first=st.booleans())
    def somebody_gives_up_in_the_moment_in_which_another_leaves(self, data: st.DataObject, leaves_first: bool) -> None:
        waiting, ticket = data.draw(st.sampled_from(self.entering)), self.taken(data)
        self.run(*((ticket.close, waiting.cancel) if leaves_first else (waiting.cancel, ticket.close)))

    @invariant()
    def the_counts_are_those_of_who_is_there(self) -> None:
        house = self.house
        assert house.inside == len(self.tickets) + len(self.entering)
        assert house.running == sum(ticket.ask.answers for ticket in self.tickets)
        assert house.prefill_tokens == sum(ticket.tokens for ticket in self.tickets)
        assert min(counts(house)) >= 0
        assert {reading.name: reading.value for reading in house.readings()}["ain_requests_waiting"] == len(
            self.entering
        )

    @invariant()
    def nobody_waits_for_an_empty_house(self) -> None:
        assert self.tickets or not self.entering

    def teardown(self) -> None:
        while self.tickets:
            self.run(self.tickets.pop().close)
        assert self.entering == []
        assert counts(self.house) == (0, 0, 0)
        self.loop.close()

    def taken(self, data: st.DataObject) -> Ticket:
        return self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))

    def run(self, *moves: Callable[[], object]) -> None:
        """Make some moves in one moment, and see what comes of them."""

        async def make() -> None:
            for move in moves:
                move()
            await settle()

        self.loop.run_until_complete(make())
        for entering in [entering for entering in self.entering if entering.done()]:
            self.entering.remove(entering)
            with suppress(ApiError, asyncio.CancelledError):
                self.tickets.append(entering.result())


TestAnyDay = AnyDay.TestCase
TestAnyDay.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
