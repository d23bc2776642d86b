"""One server under attack for the whole of these tests, on an internet of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile import auth, bodies, files, names, redirects
from tests.hostile.house import House, limits, open_house
from tests.hostile.internet import STORE, Internet, open_internet


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    folder = tmp_path_factory.mktemp("internet")
    with open_internet(folder, names.ZONE, bodies.PAGES | redirects.PAGES) as internet:
        yield internet


@pytest.fixture(scope="module")
def house(internet: Internet) -> Iterator[House]:
    flags = [*limits(), "--fetch-allowed-hosts", "{}:{}".format("store.test", STORE[1])]
    flags += files.make_folders(internet.folder)
    with open_house(internet, *flags) as house:
        house.settle()
        yield house


@pytest.fixture(scope="module")
def locked_house(internet: Internet) -> Iterator[House]:
    """A server that asks for a key; no model runs in it."""
    with open_house(internet, "--engine", "scripted", "--api-keys", auth.KEY, key=auth.KEY) as house:
        yield house
