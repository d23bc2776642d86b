"""POST /v1/chat/completions, streamed: what stands on the wire, frame by frame."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from server.engine.scripted import Script
from tests.api.house import CHAT, House, body, chunks, frames, open_house
from tests.model import NAME
from tests.waiting import eventually


def stream(house: House, **more: Any) -> list[dict[str, Any]]:
    response = house.ask(stream=True, **more)
    assert response.status_code == 200
    return chunks(response.content)


def test_a_stream_is_of_data_frames_that_end_with_one_done(house: House) -> None:
    payloads = frames(house.ask(stream=True).content)
    assert payloads[-1] == "[DONE]"
    assert payloads.count("[DONE]") == 1


def test_the_headers_keep_proxies_from_gathering_a_stream(house: House) -> None:
    headers = house.ask(stream=True).headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert "content-length" not in headers


def test_every_chunk_has_the_same_head(house: House) -> None:
    received = stream(house, n=2)
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in received}) == 1
    assert received[0]["object"] == "chat.completion.chunk"
    assert received[0]["model"] == NAME
    assert received[0]["id"].startswith("chatcmpl-")


def test_one_choice_frame_by_frame(house: House) -> None:
    def choice(delta: dict[str, str], reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]

    assert [chunk["choices"] for chunk in stream(house)] == [
        choice({"role": "assistant", "content": "", "refusal": None}),
        choice({"content": "Scripted"}),
        choice({"content": " answer"}),
        choice({"content": " مرحبا"}),
        choice({"content": "."}),
        choice({}, "stop"),
    ]


def test_a_chunk_has_no_field_that_it_should_not_have(house: House) -> None:
    """An `error` key, even null, breaks clients; `usage` is there only when it was asked for."""
    for chunk in stream(house):
        assert set(chunk) == {
            "id", "object", "created", "model", "service_tier", "system_fingerprint", "choices",
        }  # fmt: skip
        assert len(chunk["choices"]) == 1


@pytest.mark.parametrize("n", [1, 3])
def test_the_role_comes_once_for_each_choice_in_index_order_before_any_text(house: House, n: int) -> None:
    received = [chunk["choices"][0] for chunk in stream(house, n=n)]
    assert [choice["index"] for choice in received[:n]] == list(range(n))
    assert all(choice["delta"] == {"role": "assistant", "content": "", "refusal": None} for choice in received[:n])
    assert not any("role" in choice["delta"] for choice in received[n:])


@pytest.mark.parametrize("n", [1, 3])
def test_every_choice_finishes_once_and_says_nothing_afterwards(house: House, n: int) -> None:
    finished: Counter[int] = Counter()
    for chunk in stream(house, n=n):
        choice = chunk["choices"][0]
        assert finished[choice["index"]] == 0
        if choice["finish_reason"] is not None:
            assert choice["delta"] == {}
            finished[choice["index"]] += 1
    assert finished == dict.fromkeys(range(n), 1)


@pytest.mark.parametrize("more", [{}, {"n": 3}, {"max_tokens": 2}, {"stop": "x", "temperature": 0}], ids=str)
def test_a_stream_joined_is_the_whole_reply(house: House, more: dict[str, Any]) -> None:
    texts: Counter[int] | dict[int, str] = {}
    reasons = {}
    for chunk in stream(house, **more):
        choice = chunk["choices"][0]
        texts[choice["index"]] = texts.get(choice["index"], "") + choice["delta"].get("content", "")
        reasons[choice["index"]] = choice["finish_reason"]
    whole = house.ask(**more).json()["choices"]
    assert texts == {choice["index"]: choice["message"]["content"] for choice in whole}
    assert reasons == {choice["index"]: choice["finish_reason"] for choice in whole}


def test_usage_comes_last_and_without_choices_when_asked_for(house: House) -> None:
    *others, last = stream(house, n=2, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"] == house.ask(n=2).json()["usage"]
    assert all(chunk["usage"] is None for chunk in others)


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}], ids=str)
def test_usage_does_not_come_unasked(house: House, options: dict[str, Any] | None) -> None:
    received = stream(house, stream_options=options)
    assert not any("usage" in chunk for chunk in received)
    assert all(chunk["choices"] for chunk in received)


def test_obfuscation_may_be_asked_for_and_is_ignored(house: House) -> None:
    assert stream(house, stream_options={"include_obfuscation": True})


def test_text_arrives_as_it_is_made(house: House) -> None:
    house.engine.script = Script(stall_after=2)
    seen = b""
    with house.http.stream("POST", CHAT, json=body(stream=True)) as response:
        for piece in response.iter_raw():
            seen += piece
            if b" answer" in seen:
                break
    assert b"[DONE]" not in seen


def test_line_breaks_and_quotes_in_an_answer_break_no_frame(house: House) -> None:
    words = ("\n\n", "\r\n", "data: [DONE]\n\n", '"', "\\", "\u2028", "\x00", "🕌", "ﷺ")
    house.engine.script = Script(words=words)
    assert [chunk["choices"][0]["delta"].get("content") for chunk in stream(house)[1:-1]] == list(words)


def test_an_engine_that_dies_before_its_first_event_is_told_as_a_status() -> None:
    """SDKs try again on a 503, and never in the middle of a stream."""
    with open_house(Script(), warmup=False, engine_restarts=0) as house:
        house.engine.script = Script(fail_after=0)
        response = house.ask(stream=True)
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "engine_died"
        assert response.headers["x-should-retry"] == "true"
        assert eventually(lambda: house.at_rest)


def test_an_engine_that_dies_in_mid_stream_is_told_in_a_frame_and_then_done() -> None:
    with open_house(warmup=False) as house:
        house.engine.script = Script(fail_after=2)
        response = house.ask(stream=True)
        assert response.status_code == 200
        *normal, last = chunks(response.content)
        assert [chunk["choices"][0]["delta"].get("content") for chunk in normal] == ["", "Scripted", " answer"]
        assert list(last) == ["error"]
        assert set(last["error"]) == {"message", "type", "param", "code"}
        assert (last["error"]["type"], last["error"]["code"]) == ("server_error", "engine_died")
        assert eventually(lambda: house.at_rest)
