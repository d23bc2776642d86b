"""A request's time: what a client, or the operator, gives it, and what happens when it is over."""

from __future__ import annotations

import time
from typing import Any

import pytest

from server.engine.scripted import Script
from tests.api.gallery import Gallery
from tests.api.house import House, body, chunks, error_of, image_url, open_house
from tests.waiting import eventually

HEADER = "X-Request-Timeout"
OVER = {"type": "timeout_error", "param": None, "code": "deadline_exceeded"}


def told_so(error: dict[str, Any]) -> bool:
    return {name: error[name] for name in OVER} == OVER


@pytest.mark.parametrize("terms", [{"timeout": 30}, {"timeout": 0.5}, {"timeout": None}, {}], ids=str)
def test_who_is_answered_in_time_notices_nothing(house: House, terms: dict[str, Any]) -> None:
    assert house.ask(**terms).status_code == 200
    assert chunks(house.ask(stream=True, **terms).content)
    assert house.post(body(), headers={HEADER: "30"}).status_code == 200


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", ""])
def test_a_header_that_is_no_number_of_seconds_is_refused_by_name(house: House, value: str) -> None:
    error = error_of(house.post(body(), headers={HEADER: value}), 400)
    assert error["param"] == HEADER.lower()
    assert house.engine.requests == []


@pytest.mark.parametrize("value", [0, -1, "soon", True])
def test_a_field_that_is_no_number_of_seconds_is_refused_by_name(house: House, value: object) -> None:
    assert error_of(house.ask(timeout=value), 400)["param"] == "timeout"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("headers", "field"), [({HEADER: "0.1"}, None), ({}, 0.1), ({HEADER: "0.1"}, 60), ({HEADER: "60"}, 0.1)], ids=str
)
def test_an_engine_that_says_nothing_in_time_is_told_as_a_status(
    house: House, headers: dict[str, str], field: float | None, stream: bool
) -> None:
    house.engine.script = Script(stall_after=0)
    response = house.post(body(stream=stream, timeout=field), headers=headers)
    error = error_of(response, 504)
    assert told_so(error)
    assert "0.1 seconds" in error["message"]
    assert response.headers["x-should-retry"] == "false"
    assert "retry-after" not in response.headers
    assert eventually(lambda: house.at_rest)


def test_an_answer_that_is_not_complete_in_time_is_no_answer(house: House) -> None:
    house.engine.script = Script(stall_after=2)
    assert told_so(error_of(house.ask(timeout=0.1), 504))
    assert eventually(lambda: house.at_rest)


@pytest.mark.parametrize("script", [Script(stall_after=2), Script(delay=0.01, repeat=1000)], ids=["stalls", "goes on"])
def test_a_stream_that_is_not_complete_in_time_ends_with_a_frame_that_says_so(house: House, script: Script) -> None:
    house.engine.script = script
    response = house.ask(stream=True, timeout=0.2)
    assert response.status_code == 200
    *said, last = chunks(response.content)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in said][:3] == ["", "Scripted", " answer"]
    assert list(last) == ["error"]
    assert told_so(last["error"])
    assert eventually(lambda: house.at_rest)


def test_the_time_goes_on_while_a_picture_is_fetched(house: House, gallery: Gallery) -> None:
    began = time.monotonic()
    assert told_so(error_of(house.ask([image_url(gallery.url("/slow"))], timeout=0.2), 504))
    assert time.monotonic() - began < 5
    assert house.engine.requests == []
    assert eventually(lambda: house.at_rest)


def test_the_time_goes_on_while_a_request_waits_for_its_turn() -> None:
    with open_house(max_running=1) as house:
        house.engine.script = Script(stall_after=0)
        with house.raw_chat(body()):
            assert eventually(lambda: house.engine.running == 1)
            assert told_so(error_of(house.ask(timeout=0.1), 504))
            assert house.services.gate.inside == 1
            assert len(house.engine.requests) == 1
        assert eventually(lambda: house.at_rest)


def test_nobody_is_given_more_than_the_operator_allows() -> None:
    with open_house(request_timeout_s=0.2) as house:
        house.engine.script = Script(stall_after=0)
        error = error_of(house.post(body(timeout=60), headers={HEADER: "60"}), 504)
        assert "0.2 seconds" in error["message"]
        assert eventually(lambda: house.at_rest)
