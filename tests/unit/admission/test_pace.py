"""How long a wait would be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.admission.pace import AT_LEAST, LATELY_S, REMEMBERED, Pace, Rate


def steady(gap: float, count: int) -> Pace:
    pace = Pace()
    for number in range(count):
        pace.handed_out(number * gap, more_wait=True)
    return pace


def test_nothing_is_known_before_some_places_were_handed_out() -> None:
    assert steady(1.0, AT_LEAST - 1).wait_s(100, 1000.0) == 0.0
    assert steady(1.0, AT_LEAST).wait_s(0, AT_LEAST) > 0.0


@given(st.floats(0.001, 100), st.integers(AT_LEAST, 3 * REMEMBERED), st.integers(0, 1000))
def test_a_steady_pace_makes_everybody_wait_a_gap_for_each_before_them(gap: float, count: int, ahead: int) -> None:
    assert steady(gap, count).wait_s(ahead, count * gap) == pytest.approx((ahead + 1) * gap)


def test_old_times_say_nothing_once_there_are_enough_new_ones() -> None:
    pace = steady(10.0, REMEMBERED)
    now = 10.0 * REMEMBERED
    for number in range(REMEMBERED):
        pace.handed_out(now + number, more_wait=True)
    assert pace.wait_s(0, now + REMEMBERED) == pytest.approx(1.0)


def test_a_pace_that_has_come_to_a_halt_counts_as_slower_and_slower() -> None:
    pace = steady(1.0, AT_LEAST)
    waits = [pace.wait_s(0, float(now)) for now in range(AT_LEAST, 100)]
    assert waits == sorted(waits)
    assert waits[-1] > 5 * waits[0]


def test_a_gap_in_which_nobody_waited_says_nothing() -> None:
    pace = steady(1.0, AT_LEAST)
    pace.handed_out(float(AT_LEAST), more_wait=False)
    assert pace.wait_s(5, 1000.0) == 0.0
    again = steady(1.0, AT_LEAST)
    again.forget()
    assert again.wait_s(5, 1000.0) == 0.0


# ---- How often something happens


def test_nothing_has_happened_yet() -> None:
    assert Rate().a_second(1000.0) == 0.0


@given(st.floats(0.01, 10))
def test_what_happens_regularly_happens_so_often(gap: float) -> None:
    rate, now = Rate(), 0.0
    while now < 10 * LATELY_S:
        rate.happened(now)
        now += gap
    assert rate.a_second(now - gap / 2) == pytest.approx(1 / gap, rel=0.2)


def test_what_was_long_ago_is_forgotten() -> None:
    rate = Rate()
    for now in range(100):
        rate.happened(float(now))
    rates = [rate.a_second(100.0 + later) for later in range(0, 300, 10)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] / 100
