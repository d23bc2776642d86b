"""One server for most tests: starting one for each would take most of their time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.engine.scripted import Script
from tests.api.gallery import Gallery
from tests.api.house import House, open_house
from tests.waiting import eventually


@pytest.fixture(scope="package")
def shared_gallery() -> Iterator[Gallery]:
    with Gallery().open() as gallery:
        yield gallery


@pytest.fixture
def gallery(shared_gallery: Gallery) -> Iterator[Gallery]:
    """Pictures on the web; after the test nobody waits for one any more."""
    yield shared_gallery
    shared_gallery.let_go()


@pytest.fixture(scope="package")
def shared_house(shared_gallery: Gallery) -> Iterator[House]:
    # What the cache keeps of large pictures takes a descriptor each, which would pass for a leak.
    with open_house(fetch_allowed_hosts=[shared_gallery.address], media_cache_mib=1) as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    """A server that answers "Scripted answer مرحبا."; after the test nothing may be left in it."""
    shared_house.engine.script = Script()
    shared_house.engine.requests.clear()
    with shared_house.visited() as house:
        yield house
        house.engine.script = Script()
        assert house.services.not_ready_because() is None
        assert house.ask().status_code == 200, "the next good request must work"
        assert eventually(lambda: house.at_rest)
