"""How many bytes of bodies there may be, in all and of one key."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.admission.bodies import BodyBudget
from server.errors import TooManyBodies


def fill(budget: BodyBudget, tenant: str) -> int:
    taken = 0
    while True:
        try:
            budget.take(1, tenant)
        except TooManyBodies:
            return taken
        taken += 1


def test_each_key_finds_room_beside_those_who_take_all_they_can() -> None:
    budget = BodyBudget(64, 4)
    assert [fill(budget, tenant) for tenant in "abcdef"] == [32, 16, 8, 4, 4, 0]


def test_one_body_is_always_allowed_while_there_is_room() -> None:
    budget = BodyBudget(10, 8)
    budget.take(8, "a")
    with pytest.raises(TooManyBodies, match="Your key"):
        budget.take(1, "a")
    budget.take(2, "b")
    with pytest.raises(TooManyBodies, match="The server"):
        budget.take(1, "c")


def test_callers_without_a_key_are_bounded_together_alone() -> None:
    assert fill(BodyBudget(64, 4), "") == 64


def test_a_budget_smaller_than_one_body_holds_one() -> None:
    budget = BodyBudget(1, 10)
    budget.take(10, "a")
    assert budget.held == 10


@given(st.lists(st.tuples(st.sampled_from(["", "a", "b"]), st.integers(1, 9), st.booleans()), max_size=60))
def test_what_is_refused_is_not_counted_and_what_is_given_back_can_be_taken(
    steps: list[tuple[str, int, bool]],
) -> None:
    budget, held = BodyBudget(40, 10), Counter[str]()
    for tenant, size, back in steps:
        if back and held[tenant] >= size:
            budget.give_back(size, tenant)
            held[tenant] -= size
        else:
            try:
                budget.take(size, tenant)
            except TooManyBodies:
                continue
            held[tenant] += size
        assert budget.held == held.total() <= 40
