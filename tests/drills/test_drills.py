"""Every drill in its short form, with a server of ours: each of its figures must hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.drills.__main__ import DRILLS, LONG, OF_BALANCERS, run
from tests.drills.balancers import shared_replicas
from tests.drills.drill import Figure, Plan
from tests.drills.house import shared_house
from tests.drills.shared import close_shared
from tests.waiting import slowness

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def _house() -> Iterator[None]:
    shared_house()
    yield
    close_shared()


@pytest.fixture(scope="module")
def _replicas() -> Iterator[None]:
    close_shared()  # the server with the engine, which would take a core from these three
    shared_replicas()
    yield
    close_shared()


@pytest.mark.usefixtures("_house")
@pytest.mark.parametrize("name", [name for name in DRILLS if name not in OF_BALANCERS | LONG])
def test_a_server_bears_it(name: str) -> None:
    require(name)


@pytest.mark.usefixtures("_replicas")
@pytest.mark.parametrize("name", [name for name in DRILLS if name in OF_BALANCERS])
def test_nobody_before_a_balancer_notices_it(name: str) -> None:
    require(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in DRILLS if name in LONG])
def test_a_server_bears_it_for_minutes(name: str) -> None:
    require(name)


def require(name: str) -> None:
    """Seconds are those of a quiet machine: they count as many times as this one is slow, before or after."""
    times = slowness()
    figures = run(name, Plan(short=True))
    times = max(times, slowness())
    assert figures
    assert not [f"{told(figure)} (slow by {times:.1f})" for figure in figures if not figure.bears(times)]


def told(figure: Figure) -> str:
    """For a person: which figure, what it is, and what it should be."""
    return f"{figure.name} is {figure.value:g} {figure.unit}, not {figure.mark}"
