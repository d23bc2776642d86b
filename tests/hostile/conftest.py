"""One server under attack for the whole of these tests, on an internet of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.hostile import auth, bodies, files, names, redirects
from tests.hostile.house import House, limits, open_house
from tests.hostile.internet import STORE, Internet, open_internet
from tests.waiting import tried_again


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    folder = tmp_path_factory.mktemp("internet")
    with open_internet(folder, names.ZONE, bodies.PAGES | redirects.PAGES) as internet:
        yield internet


@pytest.fixture(scope="module")
def shared_house(internet: Internet) -> Iterator[House]:
    flags = [*limits(), "--fetch-allowed-hosts", "{}:{}".format("store.test", STORE[1])]
    flags += files.make_folders(internet.folder)

    @contextmanager
    def settled() -> Iterator[House]:
        with open_house(internet, *flags) as house:
            house.settle()
            yield house

    with tried_again(settled) as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    """Visited by a client of the test's own; after it no host keeps anybody waiting."""
    shared_house.internet.hold()
    with shared_house.visited() as house:
        yield house
    house.internet.let_go()


@pytest.fixture(scope="module")
def shared_locked_house(internet: Internet) -> Iterator[House]:
    with open_house(internet, "--engine", "scripted", "--api-keys", auth.KEY, key=auth.KEY) as house:
        yield house


@pytest.fixture
def locked_house(shared_locked_house: House) -> Iterator[House]:
    """A server that asks for a key; no model runs in it."""
    with shared_locked_house.visited() as house:
        yield house
