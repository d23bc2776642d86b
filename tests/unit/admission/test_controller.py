"""The bound on prompt tokens follows the time to first token."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.admission.controller import DECREASE, ENOUGH, STEPS, WINDOW_S, TtftController

LEAST, MOST = 256, 131_072


class Engine:
    """Tells a controller of first tokens, as many windows as wanted."""

    def __init__(self, target_s: float = 1.0, least: int = LEAST, most: int = MOST) -> None:
        self.controller = TtftController(target_s, least=least, most=most)
        self.now = 0.0

    def window(self, *ttfts: float, wanted_more: bool = False) -> int:
        """The limit after a window with these times."""
        *most, last = ttfts
        for ttft in most:
            self.controller.observe(ttft, self.now, wanted_more=wanted_more)
        self.now += 2 * max(WINDOW_S, self.controller.target_s)
        self.controller.observe(last, self.now, wanted_more=False)
        return self.controller.limit


def test_it_begins_with_as_much_as_there_may_be() -> None:
    assert Engine().controller.limit == MOST


def test_first_tokens_that_come_too_late_lower_the_bound() -> None:
    assert Engine().window(2.0, 2.0, 2.0, 2.0, wanted_more=True) == int(MOST * DECREASE)


@pytest.mark.parametrize(("slow", "lower"), [(0, False), (1, False), (2, True)])
def test_nine_of_ten_have_to_be_in_time(slow: int, lower: bool) -> None:
    assert (Engine().window(*[2.0] * slow, *[0.5] * (10 - slow)) < MOST) == lower


def test_the_bound_rises_by_small_steps_where_more_is_wanted_and_only_there() -> None:
    engine = Engine()
    low = engine.window(*[2.0] * ENOUGH)
    assert engine.window(*[0.5] * ENOUGH) == low
    assert engine.window(*[0.5] * ENOUGH, wanted_more=True) == low + MOST // STEPS
    assert engine.window(*[0.5] * ENOUGH) == low + MOST // STEPS


def test_a_few_requests_decide_nothing() -> None:
    engine = Engine()
    assert engine.window(*[2.0] * (ENOUGH - 1)) == MOST
    assert engine.window(2.0, 2.0) < MOST, "they count once there are enough"


def test_a_window_is_judged_once_it_is_over_and_not_before() -> None:
    engine = Engine(target_s=3.0)
    for number in range(100):
        engine.controller.observe(9.0, number * 0.0299, wanted_more=True)
        assert engine.controller.limit == MOST
    engine.controller.observe(9.0, 3.0, wanted_more=True)
    assert engine.controller.limit == int(MOST * DECREASE)


def test_it_settles_where_the_engine_is_just_fast_enough() -> None:
    """An engine that prefills 10,000 tokens a second, and a target of a second."""
    engine = Engine()
    bounds = [engine.window(*[engine.controller.limit / 10_000] * ENOUGH, wanted_more=True) for _ in range(200)]
    settled = bounds[50:]
    assert max(settled) <= 10_000 + MOST // STEPS
    assert min(settled) >= 10_000 * DECREASE * 0.9


@given(
    st.integers(1, 10_000),
    st.integers(1, 200_000),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 5), st.booleans())),
)
def test_it_stays_in_its_bounds_whatever_comes(
    least: int, most: int, observed: list[tuple[float, float, bool]]
) -> None:
    controller, now = TtftController(1.0, least=least, most=most), 0.0
    for ttft, gap, wanted_more in observed:
        now += gap
        before = controller.limit
        controller.observe(ttft, now, wanted_more=wanted_more)
        assert min(least, most) <= controller.limit <= most
        assert controller.limit <= before + most // STEPS
