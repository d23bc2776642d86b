"""The gate: who may enter, and that every place is given back once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.admission.gate import Gate, Ticket
from server.errors import Overloaded, Unavailable


def test_a_ticket_takes_a_place_until_it_is_closed() -> None:
    gate = Gate(2)
    ticket = gate.enter()
    assert gate.inside == 1
    ticket.close()
    assert gate.inside == 0


def test_closing_a_ticket_twice_gives_one_place_back() -> None:
    gate = Gate(2)
    first, second = gate.enter(), gate.enter()
    first.close()
    first.close()
    assert gate.inside == 1
    second.close()
    assert gate.inside == 0


def test_a_full_house_lets_nobody_in_until_somebody_leaves() -> None:
    gate = Gate(1)
    ticket = gate.enter()
    with pytest.raises(Overloaded):
        gate.enter()
    assert gate.inside == 1
    ticket.close()
    gate.enter()


def test_a_draining_house_lets_nobody_in_however_empty() -> None:
    gate = Gate(1)
    gate.drain()
    with pytest.raises(Unavailable) as caught:
        gate.enter()
    assert caught.value.code == "draining"
    assert gate.inside == 0


def test_who_is_inside_may_leave_while_the_house_drains() -> None:
    gate = Gate(1)
    ticket = gate.enter()
    gate.drain()
    ticket.close()
    assert gate.inside == 0


@given(st.integers(1, 4), st.lists(st.integers(-1, 5)))
def test_the_count_is_always_that_of_the_open_tickets(room: int, moves: list[int]) -> None:
    """Below 0: somebody enters; else the ticket of that number is closed, be it for the second time."""
    gate = Gate(room)
    tickets: list[Ticket] = []
    still_open: set[int] = set()
    for move in moves:
        if move >= 0:
            if move < len(tickets):
                tickets[move].close()
                still_open.discard(move)
        elif len(still_open) < room:
            still_open.add(len(tickets))
            tickets.append(gate.enter())
        else:
            with pytest.raises(Overloaded):
                gate.enter()
        assert gate.inside == len(still_open) <= room
