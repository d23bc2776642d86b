"""Many ways to harm the server, one after the other, against one real server that must stay as it was."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from tests.hostile import (
    auth,
    bodies,
    clips,
    data_urls,
    documents,
    door,
    files,
    formats,
    images,
    json_bodies,
    names,
    parameters,
    redirects,
    tokens,
    urls,
    wire,
)
from tests.hostile.case import URL, Case, refused, shown
from tests.hostile.house import House, require_decent
from tests.hostile.packing import MIB
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

MAX_GROWTH: Final = 64 * MIB
REST_S: Final = 5.0
LEAST_CASES: Final = 150
SLOW_HOSTS: Final = 100
ENOUGH_INSIDE: Final = 4
"""Of those that wait: some do so before they are let in, and the first may be through before the last has come."""
KINDS: Final[dict[str, dict[str, Case]]] = {
    "urls": urls.CASES,
    "redirects": redirects.CASES,
    "names": names.CASES,
    "files": files.CASES,
    "data urls": data_urls.CASES,
    "remote bodies": bodies.CASES,
    "http": wire.CASES,
    "door": door.CASES,
    "json": json_bodies.CASES,
    "images": images.CASES,
    "formats": formats.CASES,
    "clips": clips.CASES,
    "documents": documents.CASES,
    "tokens": tokens.CASES,
    "parameters": parameters.CASES,
}
QUICK: Final = [(kind, name) for kind, cases in KINDS.items() for name, case in cases.items() if not case.waits]
WAITING: Final = [(kind, name) for kind, cases in KINDS.items() for name, case in cases.items() if case.waits]
WHOLLY: Final = set(QUICK[::5]) | {[case for case in QUICK if case[0] == kind][-1] for kind in KINDS}
"""After every fifth case and the last of its kind a text and a picture are asked about. After the others the server
must be ready and its engine the same; whatever else is wrong with it, the next case meets. With 900, time counts."""


def judge(house: House, case: Case) -> None:
    """Send a case and hold the answer against what must come of it."""
    answer = case.send(house)
    if case.code is None:
        assert answer.status == case.status, answer.content[:2000]
    elif case.or_answered and answer.status == 200:
        return
    else:
        error = answer.error if answer.status else {}
        got = answer.status, error.get("code"), error.get("param")
        assert got == (case.status, case.code, case.param), answer.content[:2000]
        require_decent(error, answer.content)
    if case.check is not None:
        case.check(house, answer)


def require_no_growth(house: House) -> None:
    """At rest: what is kept for the next picture may be given back after a moment."""
    at_rest = eventually(lambda: house.resident().growth_since(house.memory) < MAX_GROWTH, REST_S)
    assert at_rest, f"{house.memory} has become {house.resident()}"


def test_there_are_enough_of_them() -> None:
    assert sum(map(len, (*KINDS.values(), auth.CASES))) >= LEAST_CASES


@pytest.mark.parametrize(("kind", "name"), QUICK)
def test_what_is_hostile_gets_its_answer_and_harms_nothing(house: House, kind: str, name: str) -> None:
    judge(house, KINDS[kind][name])
    if (kind, name) in WHOLLY:
        house.require_well()
    else:
        house.require_up()


def test_memory_is_what_it_was(house: House) -> None:
    """After all that is quick, and before any decode worker has been ended."""
    require_no_growth(house)


def test_what_keeps_the_server_waiting_keeps_nobody_else_waiting(house: House) -> None:
    """Deadlines of seconds, so all at once. What they all wait for is their time, so nobody else's is measured."""
    with ThreadPoolExecutor(len(WAITING)) as pool:
        judged = {case: pool.submit(judge, house, KINDS[case[0]][case[1]]) for case in WAITING}
        house.server.await_that(lambda: house.server.metric("ain_requests_inside") >= ENOUGH_INSIDE, "busy", 30)
        house.ask_text()
        assert not all(one.done() for one in judged.values()), "a text has waited for them"
    failed = {case: error for case, one in judged.items() if (error := one.exception()) is not None}
    assert not failed
    house.require_well()


def test_a_hundred_slow_hosts_keep_nobody_waiting(house: House) -> None:
    """Texts and pictures that come along are answered while all of the slow ones still wait."""
    slow = [refused(shown(url), "failed_to_download_image", URL) for url in bodies.slow_host_urls(SLOW_HOSTS)]
    with ThreadPoolExecutor(SLOW_HOSTS) as pool:
        judged = [pool.submit(judge, house, case) for case in slow]
        house.server.await_that(lambda: house.server.metric("ain_requests_inside") >= SLOW_HOSTS / 2, "full", 30)
        house.ask_text()
        house.ask_picture()
        assert not all(one.done() for one in judged), "what came along has waited for slow hosts"
        for one in judged:
            one.result()
    house.require_well()


@pytest.mark.parametrize("name", auth.CASES)
def test_nobody_enters_without_the_right_key(locked_house: House, name: str) -> None:
    judge(locked_house, auth.CASES[name])


@pytest.mark.parametrize("url", files.OUTSIDE)
def test_a_server_without_folders_opens_no_file(locked_house: House, url: str) -> None:
    judge(locked_house, files.without_folders(url))


def test_memory_is_still_what_it_was(house: House) -> None:
    """The last of these tests: after all of the above."""
    require_no_growth(house)
