"""One server for most tests: starting one for each would take most of their time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.engine.scripted import Script
from tests.api.gallery import Gallery
from tests.api.house import House, open_house
from tests.waiting import eventually


@pytest.fixture(scope="session")
def gallery() -> Iterator[Gallery]:
    with Gallery().open() as gallery:
        yield gallery


@pytest.fixture(scope="session")
def shared_house(gallery: Gallery) -> Iterator[House]:
    with open_house(fetch_allowed_hosts=[gallery.address]) as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    """A server that answers "Scripted answer مرحبا."; after the test nothing may be left in it."""
    shared_house.engine.script = Script()
    shared_house.engine.requests.clear()
    yield shared_house
    shared_house.engine.script = Script()
    assert shared_house.services.not_ready_because() is None
    assert shared_house.ask().status_code == 200, "the next good request must work"
    assert eventually(lambda: shared_house.at_rest)
