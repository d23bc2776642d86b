"""What clients are told when the engine, or the house, cannot take or finish their requests."""

from __future__ import annotations

import pytest

from server.engine.scripted import Script
from tests.api.house import House, body, error_of, open_house
from tests.waiting import eventually


def test_an_engine_that_dies_in_mid_answer_gives_no_half_answer() -> None:
    with open_house(engine_restarts=0) as house:
        house.engine.script = Script(fail_after=2)
        response = house.ask()
        error = error_of(response, 503)
        assert (error["type"], error["code"]) == ("server_error", "engine_died")
        assert response.headers["retry-after"] == "5"
        assert response.headers["x-should-retry"] == "true"


def test_a_dead_engine_takes_no_requests_and_the_process_is_told() -> None:
    with open_house(engine_restarts=0) as house:
        house.engine.die()
        response = house.ask()
        assert error_of(response, 503)["code"] == "engine_not_ready"
        assert response.headers["x-should-retry"] == "true"
        assert eventually(lambda: house.failures)
        assert house.failures[0][0] == "The engine died."
        assert house.at_rest


def test_a_request_before_the_engine_is_up_is_told_to_come_back() -> None:
    with open_house(Script(start_delay=60), up=False) as house:
        response = house.ask()
        assert error_of(response, 503)["code"] == "engine_not_ready"
        assert response.headers["retry-after"] == "5"


def test_a_full_house_refuses_at_once_and_says_when_to_come_back() -> None:
    with open_house(max_requests=2) as house:
        house.engine.script = Script(stall_after=0)
        guests = [house.raw_chat(body()), house.raw_chat(body(stream=True))]
        assert eventually(lambda: house.engine.running == 2)
        response = house.ask()
        error = error_of(response, 503)
        assert (error["type"], error["code"]) == ("server_error", "overloaded")
        assert response.headers["retry-after"] == "1"
        assert response.headers["x-should-retry"] == "true"
        for guest in guests:
            guest.close()
        assert eventually(lambda: house.at_rest)
        house.engine.script = Script()
        assert house.ask().status_code == 200


def test_a_draining_house_finishes_what_it_has_and_takes_nothing_new() -> None:
    with open_house(Script()) as house:
        house.engine.script = Script(first_delay=0.3)
        with house.raw_chat(body()) as guest:
            assert eventually(lambda: house.engine.requests)
            house.services.gate.drain()
            response = house.ask()
            assert error_of(response, 503)["code"] == "draining"
            assert response.headers["x-should-retry"] == "true"
            assert guest.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_that_nobody_foresaw_tells_nothing_about_the_house(house: House, stream: bool) -> None:
    """An engine that breaks its promise: words that are no text."""
    house.engine.script = Script(words=(b"secret \xff",))  # type: ignore[arg-type]
    response = house.ask(stream=stream)
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert '"internal_error"' in response.text
    if stream:
        assert response.text.endswith("data: [DONE]\n\n")
    else:
        assert error_of(response, 500)["type"] == "server_error"
