"""An engine that dies or hangs, as clients see it: mostly not at all."""

from __future__ import annotations

import time

import httpx
import pytest

from server.engine.scripted import Script
from tests.api.house import House, body, chunks, error_of, open_house
from tests.waiting import eventually

ANSWER = "Scripted answer مرحبا."


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


def streamed_text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks(response.content))


def metric(house: House, sample: str) -> float:
    [line] = [line for line in house.http.get("/metrics").text.splitlines() if line.startswith(sample + " ")]
    return float(line.rsplit(" ", 1)[1])


def test_an_engine_that_dies_between_requests_comes_back() -> None:
    with open_house() as house:
        house.engine.die()
        assert eventually(lambda: house.services.not_ready_because() is None)
        assert text_of(house.ask()) == ANSWER
        assert house.failures == []
        assert metric(house, 'ain_engine_restarts_total{reason="died"}') == 1
        assert metric(house, 'ain_engine_state{state="ready"}') == 1
        assert metric(house, 'ain_engine_state{state="restarting"}') == 0


def test_balancers_are_told_while_it_is_away_and_the_process_lives() -> None:
    with open_house() as house:
        house.engine.script = Script(start_delay=0.5)
        house.engine.die()
        assert house.http.get("/health/ready").status_code == 503
        assert house.http.get("/health/live").status_code == 200
        response = house.ask()
        assert error_of(response, 503)["code"] == "engine_not_ready"
        assert response.headers["retry-after"] == "5"
        assert eventually(lambda: house.http.get("/health/ready").status_code == 200)
        assert text_of(house.ask()) == ANSWER


@pytest.mark.parametrize("after", [0, 2], ids=["before the first token", "in mid answer"])
def test_a_client_that_waits_for_a_whole_answer_notices_nothing(after: int) -> None:
    with open_house() as house:
        house.engine.script = Script(fail_after=after, failures=house.engine.deaths + 1)
        reply = house.ask()
        assert text_of(reply) == ANSWER
        assert reply.json()["usage"]["completion_tokens"] == 4
        assert len({request.request_id for request in house.engine.requests} - {"warm-up"}) == 1
        assert metric(house, "ain_requests_replayed_total") == 1
        assert eventually(lambda: house.at_rest)


def test_a_stream_that_has_not_begun_is_answered_too() -> None:
    with open_house() as house:
        house.engine.script = Script(fail_after=0, failures=house.engine.deaths + 1)
        assert streamed_text_of(house.ask(stream=True)) == ANSWER
        assert eventually(lambda: house.at_rest)


def test_a_stream_that_has_begun_ends_with_an_error_and_the_next_one_is_answered() -> None:
    with open_house() as house:
        house.engine.script = Script(fail_after=2, failures=house.engine.deaths + 1)
        *said, last = chunks(house.ask(stream=True).content)
        assert [chunk["choices"][0]["delta"].get("content") for chunk in said] == ["", "Scripted", " answer"]
        assert last["error"]["code"] == "engine_died"
        assert "again" in last["error"]["message"]
        assert eventually(lambda: house.services.not_ready_because() is None)
        assert streamed_text_of(house.ask(stream=True)) == ANSWER
        assert eventually(lambda: house.at_rest)


def test_a_request_that_kills_the_engine_twice_is_refused_and_does_not_reach_it_again() -> None:
    with open_house(warmup=False) as house:
        house.engine.script = Script(fail_after=0)
        response = house.ask("Kill it")
        error = error_of(response, 422)
        assert (error["type"], error["code"]) == ("invalid_request_error", "request_crashes_engine")
        assert response.headers["x-should-retry"] == "false"
        assert eventually(lambda: house.services.not_ready_because() is None)
        reached = len(house.engine.requests)
        assert reached == 2
        assert error_of(house.ask("Kill it"), 422)["code"] == "request_crashes_engine"
        assert error_of(house.ask("Kill it", stream=True), 422)["code"] == "request_crashes_engine"
        assert len(house.engine.requests) == reached
        house.engine.script = Script()
        assert text_of(house.ask("Something else")) == ANSWER
        assert eventually(lambda: house.at_rest)


def test_a_hung_engine_is_killed_and_what_was_in_it_is_answered() -> None:
    with open_house(engine_silence_s=1, warmup=False) as house:
        house.engine.script = Script(hang=True, stall_after=0, start_delay=0.3)
        with house.raw_chat(body()) as client:
            client.settimeout(20)
            assert eventually(lambda: house.engine.running == 1)
            assert eventually(lambda: house.engine.starts == 2)
            house.engine.script = Script()
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert metric(house, 'ain_engine_restarts_total{reason="hung"}') == 1
        assert eventually(lambda: house.at_rest)


def test_a_deadline_holds_while_the_engine_comes_back() -> None:
    with open_house(warmup=False) as house:
        house.engine.script = Script(fail_after=0, failures=house.engine.deaths + 1, start_delay=1.0)
        began = time.monotonic()
        assert error_of(house.ask(timeout=0.3), 504)["code"] == "deadline_exceeded"
        assert time.monotonic() - began < 5
        assert eventually(lambda: house.at_rest)


def test_an_engine_that_does_not_come_back_ends_the_process_and_requests_are_sent_elsewhere() -> None:
    with open_house(engine_restarts=1) as house:
        house.engine.script = Script(fail_start=True, stall_after=0)
        with house.raw_chat(body()) as client:
            assert eventually(lambda: house.engine.running == 1)
            house.engine.die()
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 503")
        assert eventually(lambda: house.failures)
        [(title, hint)] = house.failures
        assert title == "The engine died 2 times within ten minutes."
        assert hint
        assert error_of(house.ask(), 503)["code"] == "engine_not_ready"
        assert house.http.get("/health/ready").json() != {"status": "ok"}
        assert house.http.get("/health/ready").status_code == 503
        assert house.at_rest
