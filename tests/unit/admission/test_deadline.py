"""A request's time: over, its work is cancelled and the client is told so."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from server.admission.deadline import Deadline
from server.errors import DeadlineExceeded


async def test_what_is_done_in_time_is_handed_on() -> None:
    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await Deadline(60).met_by(work()) == "done"


async def test_what_is_not_done_in_time_is_cancelled() -> None:
    ended = False

    async def work() -> None:
        nonlocal ended
        try:
            await anyio.sleep_forever()
        finally:
            ended = True

    with pytest.raises(DeadlineExceeded, match=r"within 0.02 seconds") as caught:
        await Deadline(0.02).met_by(work())
    assert ended
    assert (caught.value.status, caught.value.code) == (504, "deadline_exceeded")
    assert caught.value.headers() == {"x-should-retry": "false"}


async def test_the_time_runs_from_when_the_deadline_was_made_through_all_that_it_covers() -> None:
    deadline, began = Deadline(0.1), time.monotonic()
    await deadline.met_by(asyncio.sleep(0.06))
    with pytest.raises(DeadlineExceeded):
        async with deadline.enforced():
            await asyncio.sleep(60)
    assert time.monotonic() - began < 5
    with pytest.raises(DeadlineExceeded):
        await deadline.met_by(asyncio.sleep(0.01))


async def test_timeouts_of_others_stay_what_they_are() -> None:
    async def work() -> None:
        raise TimeoutError("somebody else's")

    with pytest.raises(TimeoutError, match="somebody else's") as caught:
        await Deadline(60).met_by(work())
    assert not isinstance(caught.value, DeadlineExceeded)
    with pytest.raises(TimeoutError):
        await Deadline(60).met_by(asyncio.wait_for(asyncio.sleep(60), 0.01))


async def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError):
        async with Deadline(60).enforced():
            raise KeyError


async def test_being_cancelled_is_no_deadline() -> None:
    working = asyncio.create_task(Deadline(60).met_by(asyncio.sleep(60)))
    await asyncio.sleep(0.01)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
