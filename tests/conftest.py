"""What all tests share."""

import multiprocessing

import pytest

from server.media.pool import DECODERS

# As the server itself does at its start: the fork server imports torch once, and decode workers are there at once.
multiprocessing.set_forkserver_preload([DECODERS])


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
