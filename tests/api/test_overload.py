"""What happens when more is asked than can be done at once: who waits, who is told to come back, and when."""

from __future__ import annotations

import re
import select
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest

from server.engine.scripted import Script
from tests.api.house import House, body, error_of, open_house
from tests.model import NAME
from tests.waiting import eventually

DESK, HALL = "desk-0123456789abcdefghij", "hall-0123456789abcdefghij"
STALLS = Script(stall_after=0)


def waiting(house: House) -> float:
    return reading(house, "ain_requests_waiting")


def reading(house: House, name: str) -> float:
    [value] = re.findall(rf"^{name} (\S+)$", house.http.get("/metrics").text, re.MULTILINE)
    return float(value)


@contextmanager
def busy(house: House, count: int = 1, **more: object) -> Iterator[None]:
    """With so many requests in the engine that never end; others after them are answered."""
    house.engine.script = STALLS
    guests = [house.raw_chat(body(**more)) for _ in range(count)]
    assert eventually(lambda: house.engine.running == count)
    house.engine.script = Script()
    try:
        yield
    finally:
        for guest in guests:
            guest.close()


def asking(house: House, *bodies: dict[str, Any]) -> list[Future[httpx.Response]]:
    """Requests that wait for their turn, the first of them for longest."""
    pool, replies, before = ThreadPoolExecutor(len(bodies)), [], house.services.gate.inside
    for number, one in enumerate(bodies, 1):
        replies.append(pool.submit(house.ask, **one))
        assert eventually(lambda number=number: house.services.gate.inside == before + number)  # type: ignore[misc]
    pool.shutdown(wait=False)
    return replies


def test_who_finds_no_place_waits_for_one_and_is_answered() -> None:
    with open_house(max_running=1) as house:
        with busy(house):
            [reply] = asking(house, {})
            assert eventually(lambda: waiting(house) == 1)
            assert house.engine.running == 1
            assert not reply.done()
        assert reply.result(10).status_code == 200
        assert eventually(lambda: house.at_rest)


def test_nobody_waits_longer_than_the_operator_says() -> None:
    with open_house(max_running=1, queue_timeout_s=0.1) as house, busy(house):
        response = house.ask()
        error = error_of(response, 503)
        assert (error["type"], error["code"]) == ("server_error", "overloaded")
        assert "0.1 s" in error["message"]
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert response.headers["x-should-retry"] == "true"
        assert house.engine.running == 1


def test_a_client_that_goes_away_while_it_waits_leaves_the_queue() -> None:
    with open_house(max_running=1, max_requests=2) as house:
        with busy(house):
            client = house.raw_chat(body(stream=True))
            assert eventually(lambda: house.services.gate.inside == 2)
            assert error_of(house.ask(), 503)["code"] == "overloaded"
            client.close()
            assert eventually(lambda: house.services.gate.inside == 1)
        assert eventually(lambda: house.at_rest)
        assert len(house.engine.requests) == 1


def test_requests_wait_while_the_engine_has_as_many_prompt_tokens_as_it_may() -> None:
    with open_house(max_prefill_tokens=30) as house:
        with busy(house):
            [reply] = asking(house, {})
            assert eventually(lambda: waiting(house) == 1)
            assert reading(house, "ain_prefill_tokens") == len(house.last_request.prompt.token_ids)
            assert not reply.done()
        assert reply.result(10).status_code == 200
        long = house.ask("word " * 100)
        assert long.status_code == 200, "alone it may have more than the bound"
        assert eventually(lambda: house.at_rest)
        assert reading(house, "ain_prefill_tokens") == 0


def test_a_stream_that_has_begun_holds_up_no_prompts() -> None:
    with open_house(max_prefill_tokens=30) as house:
        house.engine.script = Script(stall_after=1)
        with house.raw_chat(body(stream=True)):
            assert eventually(lambda: reading(house, "ain_requests_running") == 1)
            assert eventually(lambda: reading(house, "ain_prefill_tokens") == 0)
            house.engine.script = Script()
            assert house.ask().status_code == 200
        assert eventually(lambda: house.at_rest)


def test_answers_count_and_not_requests() -> None:
    with open_house(max_running=3) as house, busy(house, n=2):
        assert reading(house, "ain_requests_running") == 2
        assert house.ask().status_code == 200
        [reply] = asking(house, {"n": 2})
        assert eventually(lambda: waiting(house) == 1)
        assert not reply.done()
        house.engine.die()  # ends what never ends, and all of it is run again
        assert reply.result(10).status_code == 200


def test_a_request_that_wants_to_go_first_goes_before_the_others_of_its_key() -> None:
    with open_house(max_running=1) as house:
        bodies = [{"priority": priority, "max_tokens": priority + 10} for priority in (3, 1, 2)]
        with busy(house):
            replies = asking(house, *bodies)
        assert [reply.result(10).status_code for reply in replies] == [200] * 3
        order = [request.sampling.max_tokens or 0 for request in house.engine.requests[1:]]
        assert order == [11, 12, 13]


def test_flex_requests_stand_back_and_are_told_so() -> None:
    with open_house(max_running=1) as house:
        bodies: list[dict[str, Any]] = [
            {"service_tier": "flex", "max_tokens": 11},
            {"max_tokens": 12},
            {"max_tokens": 13},
        ]
        with busy(house):
            replies = asking(house, *bodies)
        assert [reply.result(10).json()["service_tier"] for reply in replies] == ["flex", "default", "default"]
        assert [request.sampling.max_tokens for request in house.engine.requests[1:]] == [12, 13, 11]


# ---- Keys


def test_a_key_that_has_its_quota_is_told_so_as_openais_clients_expect() -> None:
    with open_house(api_keys=[DESK, HALL], max_requests_per_key=2) as house:
        house.http.headers["authorization"] = f"Bearer {DESK}"
        house.engine.script = STALLS
        heads = ("POST /v1/chat/completions HTTP/1.1", f"Authorization: Bearer {DESK}")
        content = b'{"model": "%s", "messages": [{"role": "user", "content": "Hello"}]}' % NAME.encode()
        guests = [house.raw((*heads, f"Content-Length: {len(content)}"), content) for _ in range(2)]
        assert eventually(lambda: house.engine.running == 2)
        house.engine.script = Script()
        response = house.ask()
        error = error_of(response, 429)
        assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        assert response.headers["retry-after"] == "1"
        for key, refused in ((DESK, True), (HALL, False)):
            with openai.OpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0) as client:
                if refused:
                    with pytest.raises(openai.RateLimitError):
                        client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "x"}])
                else:
                    client.chat.completions.create(model=NAME, messages=[{"role": "user", "content": "x"}])
        for guest in guests:
            guest.close()
        assert eventually(lambda: house.at_rest)


def test_a_key_that_floods_the_house_makes_no_other_key_wait() -> None:
    with open_house(api_keys=[DESK, HALL], max_running=2, max_requests=6) as house:
        house.engine.script = STALLS
        heads = ("POST /v1/chat/completions HTTP/1.1", f"Authorization: Bearer {DESK}")
        content = b'{"model": "%s", "messages": [{"role": "user", "content": "Hello"}]}' % NAME.encode()
        flood = [house.raw((*heads, f"Content-Length: {len(content)}"), content) for _ in range(6)]
        assert eventually(lambda: house.services.gate.inside == 6)
        assert eventually(lambda: house.engine.running == 2)
        house.engine.script = Script()
        began = time.monotonic()
        reply = house.post(body(), headers={"authorization": f"Bearer {HALL}"})
        assert reply.status_code == 200
        assert time.monotonic() - began < 5
        [sent_away], _, _ = select.select(flood, [], [], 5)
        assert sent_away.recv(1 << 16).startswith(b"HTTP/1.1 503")
        for guest in flood:
            guest.close()
        assert eventually(lambda: house.at_rest)


# ---- What is told


def test_no_metric_is_told_twice(house: House) -> None:
    lines = house.http.get("/metrics").text.splitlines()
    kinds = Counter(line.split()[2] for line in lines if line.startswith("# TYPE "))
    assert [name for name, count in kinds.items() if count > 1] == []
    samples = Counter(line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#"))
    assert [name for name, count in samples.items() if count > 1] == []


def test_waits_and_times_to_first_tokens_are_counted(house: House) -> None:
    before = [reading(house, name) for name in ("ain_queue_seconds_count", "ain_ttft_seconds_count")]
    house.ask()
    house.ask(stream=True)
    after = [reading(house, name) for name in ("ain_queue_seconds_count", "ain_ttft_seconds_count")]
    assert [now - then for then, now in zip(before, after, strict=True)] == [2, 2]
