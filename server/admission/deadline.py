"""Until when a request is worth working on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from server.errors import DeadlineExceeded

Result = TypeVar("Result")


class Deadline:
    """The end of a request's time, from now on; it covers waiting, fetching, decoding and generating alike."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds  # the clock of event loops, whichever one enforces it

    async def met_by(self, work: Awaitable[Result]) -> Result:
        """What comes of `work`, which is cancelled when the time is over.

        Raises:
            DeadlineExceeded: it is.
        """
        async with self.enforced():
            return await work

    @asynccontextmanager
    async def enforced(self) -> AsyncIterator[None]:
        """Cancel what runs in the block when the time is over.

        Raises:
            DeadlineExceeded: it is.
        """
        loop = asyncio.get_running_loop()
        timeout = asyncio.timeout_at(loop.time() + self._at - time.monotonic())
        try:
            async with timeout:
                yield
        except TimeoutError:
            if not timeout.expired():  # somebody else's
                raise
            raise DeadlineExceeded(
                f"The answer was not complete within {self.seconds:g} seconds, the time that this request has."
            ) from None
