"""Bad input gets the right status and code in OpenAI's shape; the next good request works (the fixture sees to it)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from server.engine.scripted import Script
from tests.api.house import CHAT, RED, House, body, error_of, image_url, open_house, plain
from tests.model import NAME
from tests.waiting import eventually

GOOD = body()
MESSAGES = GOOD["messages"]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


# ---- Not even JSON

NOT_A_REQUEST: dict[str, tuple[bytes, str]] = {
    "an empty body": (b"", "invalid_json"),
    "not JSON": (b"model=ain-demo", "invalid_json"),
    "JSON cut off": (json.dumps(GOOD).encode()[:-1], "invalid_json"),
    "two objects": (json.dumps(GOOD).encode() * 2, "invalid_json"),
    "a list": (b"[]", "invalid_type"),
    "a string": (b'"Hello"', "invalid_type"),
    "null": (b"null", "invalid_type"),
    "not UTF-8": (b'{"model":"ain-demo","messages":[{"role":"user","content":"\xff"}]}', "invalid_json"),
    "UTF-16": (json.dumps(GOOD).encode("utf-16"), "invalid_json"),
    "half of a surrogate pair": (
        b'{"model":"ain-demo","messages":[{"role":"user","content":"\\ud83d"}]}',
        "invalid_json",
    ),
    "lists a hundred thousand deep": (b"[" * 100_000, "invalid_json"),
    "objects a hundred thousand deep": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "invalid_json"),
    "a number of six thousand digits": (json.dumps(GOOD).encode()[:-1] + b',"n":' + b"9" * 6000 + b"}", "invalid_json"),
}


@pytest.mark.parametrize("case", NOT_A_REQUEST)
def test_what_is_no_json_object_is_refused(house: House, case: str) -> None:
    content, code = NOT_A_REQUEST[case]
    error = error_of(house.http.post(CHAT, content=content), 400)
    assert error["type"] == "invalid_request_error"
    assert error["code"] == code
    assert error["param"] is None


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "nonsense", None])
def test_a_content_type_that_no_web_page_can_send_unasked_does_not_matter(house: House, kind: str | None) -> None:
    headers = {} if kind is None else {"content-type": kind}
    assert house.http.post(CHAT, content=json.dumps(GOOD), headers=headers).status_code == 200


# ---- Fields that are missing or wrong: (what the good body is changed by, code, param)

MISSING = "missing_required_parameter"
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no messages": ({"messages": ...}, MISSING, "messages"),
    "messages null": ({"messages": None}, "invalid_type", "messages"),
    "empty messages": ({"messages": []}, "invalid_value", "messages"),
    "messages an object": ({"messages": {}}, "invalid_type", "messages"),
    "a message that is none": ({"messages": ["Hello"]}, "invalid_type", "messages[0]"),
    "no role": ({"messages": [{"content": "Hello"}]}, MISSING, "messages[0].role"),
    "an unknown role": ({"messages": [{"role": "king", "content": "Hello"}]}, "invalid_value", "messages[0].role"),
    "no content": ({"messages": [{"role": "user"}]}, MISSING, "messages[0].content"),
    "content null": ({"messages": [user(None)]}, MISSING, "messages[0].content"),
    "content a number": ({"messages": [user(5)]}, "invalid_type", "messages[0].content"),
    "content an object": ({"messages": [user({})]}, "invalid_type", "messages[0].content"),
    "a part that is a number": ({"messages": [user([5])]}, "invalid_type", "messages[0].content[0]"),
    "a part without a type": ({"messages": [user([{"text": "a"}])]}, "invalid_value", "messages[0].content[0].type"),
    "an unknown type of part": (
        {"messages": [user([{"type": "text", "text": "a"}, {"type": "input_audio", "input_audio": {}}])]},
        "invalid_value",
        "messages[0].content[1].type",
    ),
    "a type of part that is no string": (
        {"messages": [user([{"type": ["text"]}])]},
        "invalid_value",
        "messages[0].content[0].type",
    ),
    "a text part without text": (
        {"messages": [user([{"type": "text"}])]},
        MISSING,
        "messages[0].content[0].text",
    ),
    "a text that is a number": (
        {"messages": [user("Hi"), user([{"type": "text", "text": 5}])]},
        "invalid_type",
        "messages[1].content[0].text",
    ),
    "model a number": ({"model": 5}, "invalid_type", "model"),
    "temperature too low": ({"temperature": -0.1}, "invalid_value", "temperature"),
    "temperature too high": ({"temperature": 2.1}, "invalid_value", "temperature"),
    "temperature text": ({"temperature": "0.5"}, "invalid_type", "temperature"),
    "temperature not a number": ({"temperature": float("nan")}, "invalid_value", "temperature"),
    "temperature infinite": ({"temperature": float("inf")}, "invalid_value", "temperature"),
    "top_p below zero": ({"top_p": -0.1}, "invalid_value", "top_p"),
    "top_p above one": ({"top_p": 1.01}, "invalid_value", "top_p"),
    "top_p not a number": ({"top_p": float("nan")}, "invalid_value", "top_p"),
    "top_k too low": ({"top_k": -2}, "invalid_value", "top_k"),
    "min_p above one": ({"min_p": 1.01}, "invalid_value", "min_p"),
    "presence_penalty too low": ({"presence_penalty": -2.1}, "invalid_value", "presence_penalty"),
    "presence_penalty too high": ({"presence_penalty": 2.1}, "invalid_value", "presence_penalty"),
    "frequency_penalty too low": ({"frequency_penalty": -2.1}, "invalid_value", "frequency_penalty"),
    "frequency_penalty too high": ({"frequency_penalty": 2.1}, "invalid_value", "frequency_penalty"),
    "repetition_penalty zero": ({"repetition_penalty": 0}, "invalid_value", "repetition_penalty"),
    "max_tokens zero": ({"max_tokens": 0}, "invalid_value", "max_tokens"),
    "max_tokens below zero": ({"max_tokens": -1}, "invalid_value", "max_tokens"),
    "max_tokens true": ({"max_tokens": True}, "invalid_type", "max_tokens"),
    "max_tokens text": ({"max_tokens": "7"}, "invalid_type", "max_tokens"),
    "max_tokens a fraction": ({"max_tokens": 1.5}, "invalid_type", "max_tokens"),
    "max_tokens huge": ({"max_tokens": 10**30}, "invalid_value", "max_tokens"),
    "max_completion_tokens zero": ({"max_completion_tokens": 0}, "invalid_value", "max_completion_tokens"),
    "seed huge": ({"seed": 2**63}, "invalid_value", "seed"),
    "seed hugely negative": ({"seed": -(10**40)}, "invalid_value", "seed"),
    "seed text": ({"seed": "7"}, "invalid_type", "seed"),
    "n zero": ({"n": 0}, "invalid_value", "n"),
    "n over the operator's cap": ({"n": 9}, "invalid_value", "n"),
    "n over anybody's cap": ({"n": 129}, "invalid_value", "n"),
    "stop a number": ({"stop": 5}, "invalid_type", "stop"),
    "stop with a number": ({"stop": ["a", 5]}, "invalid_type", "stop[1]"),
    "five stops": ({"stop": list("abcde")}, "invalid_value", "stop"),
    "an empty stop": ({"stop": ["a", ""]}, "invalid_value", "stop[1]"),
    "a stop without end": ({"stop": "a" * 1025}, "invalid_value", "stop[0]"),
    "stream text": ({"stream": "yes"}, "invalid_type", "stream"),
    "stream a number": ({"stream": 1}, "invalid_type", "stream"),
    "stream_options without stream": ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
    "stream_options a list": ({"stream": True, "stream_options": []}, "invalid_type", "stream_options"),
    "include_usage text": (
        {"stream": True, "stream_options": {"include_usage": "yes"}},
        "invalid_type",
        "stream_options.include_usage",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_field_is_a_400_that_names_it(house: House, case: str) -> None:
    change, code, param = WRONG[case]
    request = {name: value for name, value in (GOOD | change).items() if value is not ...}
    error = error_of(house.http.post(CHAT, content=json.dumps(request)), 400)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", code, param)
    assert house.engine.requests == []


def test_the_limits_themselves_are_within_bounds(house: House) -> None:
    within: tuple[dict[str, Any], ...] = (
        {"temperature": 0},
        {"temperature": 2},
        {"top_p": 1},
        {"presence_penalty": -2},
        {"frequency_penalty": 2},
        {"n": 8},
        {"stop": list("abcd")},
        {"stop": []},
        {"seed": 2**63 - 1},
        {"top_k": -1},
        {"max_tokens": 1},
    )
    for field in within:
        assert house.ask(**field).status_code == 200, field


def test_a_message_never_repeats_megabytes_of_what_came_in(house: House) -> None:
    for request in (body() | {"model": "m" * 1_000_000}, body() | {"temperature": "x" * 1_000_000}):
        assert len(house.post(request).content) < 2000


def test_an_unknown_model_is_a_404_that_names_what_there_is(house: House) -> None:
    error = error_of(house.post(body() | {"model": "gpt-5"}), 404)
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "model_not_found", "model")
    assert "gpt-5" in error["message"]
    assert NAME in error["message"]


# ---- What is not offered


@pytest.mark.parametrize("role", ["tool", "function"])
def test_messages_of_tools_are_refused(house: House, role: str) -> None:
    error = error_of(house.post(body() | {"messages": [*MESSAGES, {"role": role, "content": "5"}]}), 400)
    assert (error["code"], error["param"]) == ("unsupported_parameter", "messages[1].role")


@pytest.mark.parametrize("name", ["tool_calls", "function_call"])
def test_calls_of_tools_in_a_message_are_refused_and_not_forgotten(house: House, name: str) -> None:
    spoken = {"role": "assistant", "content": None, name: [{"id": "call-1"}]}
    error = error_of(house.post(body() | {"messages": [*MESSAGES, spoken]}), 400)
    assert (error["code"], error["param"]) == ("unsupported_parameter", f"messages[1].{name}")


def test_more_objects_than_any_context_holds_are_refused_before_they_are_read(house: House) -> None:
    parts = [{"type": "text", "text": ""}] * 60_000
    error = error_of(house.post(body() | {"messages": [{"role": "user", "content": parts}]}), 400)
    assert "more than 64 KiB of JSON besides its strings" in error["message"]


# ---- Web pages


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "169.254.169.254", "127.0.0.1.evil.example"])
def test_a_server_without_keys_answers_to_the_names_of_its_machine_alone(house: House, host: str) -> None:
    response = house.http.get("/v1/models", headers={"host": host})
    assert error_of(response, 403)["code"] == "forbidden"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8000"])
def test_every_name_of_the_machine_will_do(house: House, host: str) -> None:
    assert house.http.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "Text/Plain; charset=utf-8", "application/x-www-form-urlencoded"])
def test_what_a_web_page_can_send_unasked_is_refused(house: House, kind: str) -> None:
    response = house.http.post("/v1/chat/completions", content=json.dumps(body()), headers={"content-type": kind})
    assert error_of(response, 400)["code"] == "invalid_content_type"


EVIL, HERE = "http://evil.example", "http://127.0.0.1:3000"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": EVIL, "sec-fetch-site": "cross-site"},
        {"origin": EVIL},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://evil.example/localhost"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [None, "application/json"])
def test_the_page_of_a_stranger_is_refused(house: House, headers: dict[str, str], kind: str | None) -> None:
    """What `fetch` sends of a Blob with mode no-cors: a body without a content type, asked of nobody before."""
    sent = headers if kind is None else {**headers, "content-type": kind}
    reply = house.http.post(CHAT, content=json.dumps(GOOD), headers=sent)
    assert error_of(reply, 403)["code"] == "forbidden"
    assert house.engine.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": HERE, "sec-fetch-site": "same-site"},
        {"origin": "http://localhost", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
    ids=str,
)
def test_pages_of_this_machine_and_links_to_it_are_served(house: House, headers: dict[str, str]) -> None:
    assert house.http.get("/v1/models", headers=headers).status_code == 200


def test_a_page_that_the_operator_names_is_served() -> None:
    with open_house(cors_origins=[EVIL]) as friendly:
        sent = {"origin": EVIL, "sec-fetch-site": "cross-site", "content-type": "application/json"}
        assert friendly.http.post(CHAT, content=json.dumps(GOOD), headers=sent).status_code == 200
        assert friendly.http.post(CHAT, content=json.dumps(GOOD), headers=sent | {"origin": HERE}).status_code == 200
        assert friendly.http.post(CHAT, content="{}", headers=sent | {"origin": EVIL + "s"}).status_code == 403


def test_with_keys_it_is_the_key_that_counts() -> None:
    with open_house(api_keys=["a-key-of-more-than-22-letters"]) as house:
        sent = {"origin": EVIL, "authorization": "Bearer a-key-of-more-than-22-letters"}
        assert house.http.post(CHAT, content=json.dumps(GOOD), headers=sent).status_code == 200


# ---- Too long for the model


def test_a_prompt_longer_than_the_context_is_told_in_openais_words(house: House) -> None:
    house.engine.script = Script(max_model_len=40)
    error = error_of(house.ask("word " * 200), 400)
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
    )
    assert "This model's maximum context length is 40 tokens" in error["message"]
    assert "context_length_exceeded" in error["message"]


def test_a_prompt_that_leaves_no_room_for_an_answer_is_too_long(house: House) -> None:
    house.ask()
    used = len(house.last_request.prompt.token_ids)
    house.engine.script = Script(max_model_len=used)
    assert error_of(house.ask(), 400)["code"] == "context_length_exceeded"
    house.engine.script = Script(max_model_len=used + 1)
    assert house.ask().json()["usage"]["completion_tokens"] == 1


def test_a_prompt_that_leaves_no_room_is_told_before_an_answer_begins(house: House) -> None:
    error = error_of(house.ask("x" * 4096, max_tokens=1), 400)
    assert error["code"] == "context_length_exceeded"
    assert "This model's maximum context length is 4096 tokens" in error["message"]
    assert "context_length_exceeded" in error["message"]


def test_pictures_count_as_context(house: House) -> None:
    house.engine.script = Script(max_model_len=100)
    assert error_of(house.ask([image_url(plain(RED, 280, 280))]), 400)["code"] == "context_length_exceeded"


# ---- Bodies that are too large or too slow


@pytest.fixture(scope="module")
def shared_strict_house() -> Iterator[House]:
    with open_house(max_body_mib=1, body_timeout_s=0.2) as house:
        yield house


@pytest.fixture
def strict_house(shared_strict_house: House) -> Iterator[House]:
    with shared_strict_house.visited() as house:
        yield house


MIB = 1 << 20
CHUNKED = (f"POST {CHAT} HTTP/1.1", "Transfer-Encoding: chunked", "Connection: close")


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_read(strict_house: House) -> None:
    with strict_house.raw((f"POST {CHAT} HTTP/1.1", f"Content-Length: {MIB + 1}")) as connection:
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 413")
    assert b'"request_too_large"' in answer
    assert strict_house.ask().status_code == 200


def test_a_client_that_asks_first_is_not_told_to_send_a_body_that_is_too_large(strict_house: House) -> None:
    head = (f"POST {CHAT} HTTP/1.1", f"Content-Length: {MIB + 1}", "Expect: 100-continue")
    with strict_house.raw(head) as connection:
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_say_its_size_is_counted(strict_house: House) -> None:
    with strict_house.raw(CHUNKED) as connection:
        for _ in range(17):
            connection.sendall(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 413")
    assert strict_house.ask().status_code == 200


def test_a_body_of_just_the_limit_is_read(strict_house: House) -> None:
    content = json.dumps(GOOD).encode()
    response = strict_house.http.post(CHAT, content=content + b" " * (MIB - len(content)))
    assert response.status_code == 200
    error = error_of(strict_house.http.post(CHAT, content=content + b" " * (MIB - len(content) + 1)), 413)
    assert (error["type"], error["code"]) == ("invalid_request_error", "request_too_large")


def test_the_limit_holds_to_the_byte_for_a_body_in_chunks(strict_house: House) -> None:
    content = json.dumps(GOOD).encode()
    for size, status in [(MIB, b"200"), (MIB + 1, b"413")]:
        whole = content + b" " * (size - len(content))
        with strict_house.raw(CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (size, whole)) as connection:
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 " + status)


def test_a_body_that_does_not_come_is_not_waited_for(strict_house: House) -> None:
    began = time.monotonic()
    with strict_house.raw((f"POST {CHAT} HTTP/1.1", "Content-Length: 100"), b'{"model":') as connection:
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"request_timeout"' in answer
    assert b'"timeout_error"' in answer
    assert time.monotonic() - began < 20
    assert strict_house.ask().status_code == 200


def test_a_body_that_trickles_is_not_waited_for_either(strict_house: House) -> None:
    with strict_house.raw(CHUNKED) as connection:
        connection.settimeout(0.02)
        answer = b""
        for _ in range(100):
            try:
                connection.sendall(b"1\r\n \r\n")
                answer = connection.recv(1 << 16)
                break
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_client_that_breaks_off_its_body_does_no_harm(strict_house: House, caplog: pytest.LogCaptureFixture) -> None:
    with strict_house.raw((f"POST {CHAT} HTTP/1.1", "Content-Length: 100"), b'{"model":'):
        pass
    assert eventually(lambda: strict_house.services.gate.inside == 0)
    assert strict_house.ask().status_code == 200
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


# ---- Addresses and methods


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/completions", "/v2/models", "/v1/chat/completions/x", "/../etc"])
def test_an_unknown_address_is_a_404(house: House, path: str) -> None:
    error = error_of(house.http.get(path), 404)
    assert (error["type"], error["code"]) == ("not_found_error", "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", CHAT),
        ("PUT", CHAT),
        ("DELETE", CHAT),
        ("POST", "/v1/models"),
        ("POST", "/health"),
        ("PATCH", "/metrics"),
    ],
)
def test_a_wrong_method_is_a_405_that_says_which_are_right(house: House, method: str, path: str) -> None:
    response = house.http.request(method, path)
    error = error_of(response, 405)
    assert (error["type"], error["code"]) == ("invalid_request_error", "method_not_allowed")
    assert response.headers["allow"] in {"GET", "POST"}
