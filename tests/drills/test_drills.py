"""Every drill in its short form, with a server of ours: each of its figures must hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.drills.__main__ import DRILLS, OF_SPEED, run
from tests.drills.drill import Figure, Plan
from tests.drills.house import close_shared_house

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module", autouse=True)
def _shared_house() -> Iterator[None]:
    yield
    close_shared_house()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in OF_SPEED else name for name in DRILLS]
)
def test_the_server_bears_it(name: str) -> None:
    figures = run(name, Plan(short=True))
    assert figures
    assert not [told(figure) for figure in figures if not figure.holds]


def told(figure: Figure) -> str:
    """For a person: which figure, what it is, and what it should be."""
    return f"{figure.name} is {figure.value:g} {figure.unit}, not {figure.mark}"
