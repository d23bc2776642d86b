"""Fetched files: kept as long as their server allows, apart for each tenant, and fetched fairly between tenants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from server.errors import InvalidImage, InvalidVideo, MediaKind
from server.media.fetching.remote import OVERHEAD, RemoteFiles
from server.media.sources import Remote
from tests.unit.media.web import BODY, Names, Respond, Site, answer, fetching, paths, redirect, serving

pytestmark = pytest.mark.timeout(20)

PARAM = "messages[0].content[0].image_url.url"
OTHER = BODY[::-1]
FRESH = "Cache-Control: max-age=3600"
STALE = "Cache-Control: max-age=0"
ETAG = 'ETag: "1"'


class House:
    """A site and what fetches from it."""

    def __init__(self, site: Site, files: RemoteFiles) -> None:
        self.site = site
        self.files = files
        self.spent: list[int] = []

    async def get(
        self, path: str = "", tenant: str = "one", kind: MediaKind = "image", max_bytes: int = 1 << 20
    ) -> bytes:
        """What a request of a tenant gets from a path; `spent` then says which bytes were counted for it."""
        self.spent.clear()
        return await self.files.get(
            Remote(f"{self.site.url}/{path}", kind, PARAM), tenant, max_bytes, self.spent.append
        )

    @property
    def asked(self) -> list[str]:
        """What the site was asked for, and with which validator."""
        heads = [request.decode().splitlines() for request in self.site.requests]
        asked = []
        for start, *headers in heads:
            validators = [header.partition(": ")[2] for header in headers if header.startswith("If-")]
            asked.append(" ".join([start.split(" ")[1].strip("/"), *validators]).strip())
        return asked


@asynccontextmanager
async def house(respond: Respond, *, cache_bytes: int = 1 << 20, slots: int = 8, **limits: Any) -> AsyncIterator[House]:
    async with serving(respond) as site, fetching(site, Names(site_test=[["127.0.0.1"]]), **limits) as fetcher:
        files = RemoteFiles(fetcher, cache_bytes=cache_bytes, slots=slots)
        yield House(site, files)
        await files.aclose()


def in_turn(*responds: Respond) -> Respond:
    """One answer for each request, the last for all further ones."""
    left = list(responds)

    async def respond(head: bytes, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(head, writer)

    return respond


def unchanged(*headers: str) -> Respond:
    return answer(b"", *headers, status="304 Not Modified")


# ---- Kept -------------------------------------------------------------------------------------------


async def test_what_is_fresh_is_not_asked_for_again() -> None:
    async with house(answer(BODY, FRESH)) as there:
        for _ in range(3):
            assert await there.get() == BODY
            assert sum(there.spent) == len(BODY)  # its bytes count for each request all the same
        assert len(there.asked) == 1


async def test_what_is_stale_is_asked_about_and_holds() -> None:
    async with house(in_turn(answer(BODY, STALE, ETAG), unchanged(STALE))) as there:
        for _ in range(3):
            assert await there.get() == BODY
            assert sum(there.spent) == len(BODY)
        assert there.asked == ["", '"1"', '"1"']


async def test_an_answer_that_all_holds_makes_it_fresh_anew() -> None:
    async with house(in_turn(answer(BODY, STALE, ETAG), unchanged(FRESH))) as there:
        for _ in range(4):
            assert await there.get() == BODY
        assert there.asked == ["", '"1"']


async def test_an_answer_that_all_holds_may_name_new_validators() -> None:
    first = answer(BODY, STALE, ETAG, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT")
    async with house(in_turn(first, unchanged(STALE, 'ETag: "2"'))) as there:
        for _ in range(3):
            assert await there.get() == BODY
        date = "Sun, 06 Nov 1994 08:49:37 GMT"
        assert there.asked == ["", f'"1" {date}', f'"2" {date}']


async def test_a_date_is_enough_to_ask_by() -> None:
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    async with house(in_turn(answer(BODY, f"Last-Modified: {date}"), unchanged())) as there:
        assert [await there.get() for _ in range(2)] == [BODY, BODY]
        assert there.asked == ["", date]


async def test_what_has_changed_takes_the_place_of_the_old() -> None:
    responds = answer(BODY, STALE, ETAG), answer(OTHER, FRESH, 'ETag: "2"')
    async with house(in_turn(*responds)) as there:
        assert [await there.get() for _ in range(3)] == [BODY, OTHER, OTHER]
        assert there.asked == ["", '"1"']


async def test_what_has_changed_and_must_not_be_kept_drives_the_old_out() -> None:
    responds = answer(BODY, STALE, ETAG), answer(OTHER, "Cache-Control: no-store"), answer(BODY)
    async with house(in_turn(*responds)) as there:
        assert [await there.get() for _ in range(3)] == [BODY, OTHER, BODY]
        assert there.asked == ["", '"1"', ""]


async def test_an_answer_that_all_holds_but_must_not_be_kept_is_the_last_of_it() -> None:
    responds = answer(BODY, STALE, ETAG), unchanged("Cache-Control: no-store"), answer(OTHER)
    async with house(in_turn(*responds)) as there:
        assert [await there.get() for _ in range(3)] == [BODY, BODY, OTHER]
        assert there.asked == ["", '"1"', ""]


async def test_what_failed_to_be_asked_about_is_asked_about_again() -> None:
    responds = answer(BODY, STALE, ETAG), answer(b"", status="503 Busy"), unchanged(FRESH)
    async with house(in_turn(*responds)) as there:
        assert await there.get() == BODY
        with pytest.raises(InvalidImage, match="503"):
            await there.get()
        assert await there.get() == BODY
        assert there.asked == ["", '"1"', '"1"']


# ---- Not kept ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Cache-Control: no-store", ETAG),
        (FRESH, "Cache-Control: no-store"),
        (FRESH, "Vary: *"),
        ("Cache-Control: max-age=3600", "Age: 3600"),
        ("Expires: 0",),
    ],
)
async def test_what_its_server_does_not_want_kept_is_fetched_each_time(headers: tuple[str, ...]) -> None:
    async with house(answer(BODY, *headers)) as there:
        assert [await there.get() for _ in range(2)] == [BODY, BODY]
        assert there.asked == ["", ""]
        assert there.files.cache.bytes == 0


async def test_what_a_redirect_leads_to_is_fetched_each_time() -> None:
    respond = paths(start=redirect("/end", "301 Moved", FRESH, ETAG), end=answer(BODY, FRESH, ETAG))
    async with house(respond) as there:
        assert [await there.get("start") for _ in range(2)] == [BODY, BODY]
        assert there.asked == ["start", "end"] * 2
        assert there.files.cache.bytes == 0


async def test_what_now_redirects_is_no_longer_what_was_kept() -> None:
    responds = in_turn(answer(BODY, STALE, ETAG), redirect("/end"))
    async with house(paths(start=responds, end=answer(OTHER, FRESH, ETAG))) as there:
        assert [await there.get("start") for _ in range(3)] == [BODY, OTHER, OTHER]
        assert there.asked == ["start", 'start "1"', "end", "start", "end"]


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oh"])
async def test_failures_are_not_kept(status: str) -> None:
    responds = answer(b"", FRESH, ETAG, status=status), answer(BODY)
    async with house(in_turn(*responds)) as there:
        with pytest.raises(InvalidImage, match=status[:3]):
            await there.get()
        assert await there.get() == BODY
        assert there.asked == ["", ""]


async def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    async with house(answer(BODY, FRESH, ETAG), cache_bytes=0) as there:
        assert [await there.get() for _ in range(2)] == [BODY, BODY]
        assert there.asked == ["", ""]


async def test_the_cache_is_bounded_and_forgets_what_was_used_least_recently() -> None:
    room = 2 * (len(BODY) + OVERHEAD)
    async with house(answer(BODY, FRESH), cache_bytes=room) as there:
        for path in ("a", "b", "a", "c", "a", "b"):
            assert await there.get(path) == BODY
            assert there.files.cache.bytes <= room
        assert there.asked == ["a", "b", "c", "b"]


async def test_many_tiny_files_count_more_than_their_bytes() -> None:
    async with house(answer(b"", FRESH), cache_bytes=3 * OVERHEAD) as there:
        for number in range(10):
            await there.get(str(number))
        assert there.files.cache.bytes == 3 * OVERHEAD


# ---- Limits -----------------------------------------------------------------------------------------


async def test_what_was_kept_is_held_to_the_limits_of_who_asks_now() -> None:
    for headers in ((FRESH,), (STALE, ETAG)):
        async with house(answer(BODY, *headers)) as there:
            await there.get()
            with pytest.raises(InvalidImage) as caught:
                await there.get(max_bytes=len(BODY) - 1)
            assert caught.value.code == "image_file_too_large"
            assert '"1"' not in there.asked


async def test_who_may_spend_no_more_gets_nothing_that_was_kept_either() -> None:
    def stop(size: int) -> None:
        raise InvalidImage("enough", code="image_file_too_large", param=PARAM)

    for responds in ((answer(BODY, FRESH),), (answer(BODY, STALE, ETAG), unchanged(STALE))):
        async with house(in_turn(*responds)) as there:
            await there.get()
            with pytest.raises(InvalidImage, match="enough"):
                await there.files.get(Remote(f"{there.site.url}/", "image", PARAM), "one", 1 << 20, stop)


async def test_errors_are_those_of_the_kind() -> None:
    async with house(answer(BODY)) as there:
        with pytest.raises(InvalidVideo) as caught:
            await there.get(kind="video", max_bytes=1)
        assert (caught.value.code, caught.value.param) == ("video_too_large", PARAM)


# ---- Tenants ----------------------------------------------------------------------------------------


async def test_nobody_gets_what_another_tenant_has_fetched() -> None:
    async with house(answer(BODY, FRESH)) as there:
        for tenant in ("one", "other", "one", "other", ""):
            assert await there.get(tenant=tenant) == BODY
        assert len(there.asked) == 3


async def test_kinds_are_kept_apart_since_each_asks_for_its_own() -> None:
    async with house(answer(BODY, FRESH)) as there:
        for kind in ("image", "video", "image", "video"):
            assert await there.get(kind=kind) == BODY
        assert len(there.asked) == 2


class Gate:
    """A slow host: an answer that comes when the test says so."""

    def __init__(self) -> None:
        self.waiting = 0
        self.arrived = asyncio.Semaphore(0)
        self.open = asyncio.Event()

    async def __call__(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        self.waiting += 1
        self.arrived.release()
        await self.open.wait()
        await answer()(head, writer)

    async def holds(self, number: int) -> None:
        """Return once so many requests have come here."""
        for _ in range(number):
            await self.arrived.acquire()


async def test_one_tenant_with_slow_hosts_does_not_stop_another() -> None:
    gate = Gate()
    async with house(paths(slow=gate, fast=answer(BODY)), slots=4) as there:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(there.get, "slow", "one")
            await gate.holds(2)
            for _ in range(3):
                assert await there.get("fast", "other") == BODY
            assert gate.waiting == 2  # of ten, as many as one tenant may have at once
            gate.open.set()
        assert gate.waiting == 10


async def test_what_was_kept_needs_no_turn() -> None:
    gate = Gate()
    async with house(paths(slow=gate, kept=answer(BODY, FRESH)), slots=2) as there:
        assert await there.get("kept") == BODY
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(there.get, "slow")
            await gate.holds(1)
            assert await there.get("kept") == BODY
            gate.open.set()


@pytest.mark.parametrize("while_waiting", [True, False])
async def test_who_is_cancelled_leaves_the_turn_to_the_next(while_waiting: bool) -> None:
    gate = Gate()
    async with house(paths(slow=gate, fast=answer(BODY)), slots=2) as there:
        first = asyncio.ensure_future(there.get("slow"))
        await gate.holds(1)
        second = asyncio.ensure_future(there.get("slow"))
        third = asyncio.ensure_future(there.get("fast"))
        await asyncio.sleep(0)
        leaving = [second, first] if while_waiting else [first, second]
        for task in leaving:
            task.cancel()
            await asyncio.wait([task])
        assert await third == BODY
        assert all(task.cancelled() for task in leaving)


async def test_a_failure_leaves_the_turn_to_the_next() -> None:
    respond = paths(broken=answer(b"", status="500 Oh"), good=answer(BODY))
    async with house(respond, slots=2) as there:
        for _ in range(3):
            with pytest.raises(InvalidImage, match="500"):
                await there.get("broken")
        assert await there.get("good") == BODY
