"""What clients of other servers expect to find: other addresses, names left out, compressed bodies, advice."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from server import __version__
from server.engine.scripted import Script
from tests.api.house import CHAT, NAME, RED, House, body, chunks, data_url, error_of, image_url, open_house, plain

# ---- Addresses


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/models"])
def test_models_are_listed_under_every_spelling(house: House, path: str) -> None:
    assert house.http.get(path).json()["data"][0]["id"] == NAME
    head = house.http.head(path)
    assert (head.status_code, head.content) == (200, b"")


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_one_model_is_found_under_every_spelling(house: House, path: str) -> None:
    assert house.http.get(f"{path}/{NAME}").json()["id"] == NAME
    assert house.http.head(f"{path}/{NAME}").status_code == 200
    error_of(house.http.get(f"{path}/another"), 404)


def test_chat_needs_no_v1(house: House) -> None:
    assert house.http.post("/chat/completions", json=body()).json()["object"] == "chat.completion"


def test_versions_and_pings(house: House) -> None:
    told = house.http.get("/version").json()
    assert told["version"] == __version__
    assert set(told["engine"]) == {"name", "version"}
    for method in ("GET", "POST"):
        assert house.http.request(method, "/ping").status_code == 200


def test_a_ping_needs_no_key_and_fails_while_nothing_can_be_asked() -> None:
    with open_house(up=False, api_keys=["ain-a-key-of-the-api-0001"]) as house:
        house.services.gate.drain()
        assert house.http.get("/ping").status_code == 503
        error_of(house.http.get("/version"), 401)


# ---- Names of models


def test_no_model_means_the_one_that_is_served(house: House) -> None:
    for asked in ({}, {"model": None}):
        request = {name: value for name, value in body().items() if name != "model"} | asked
        assert house.post(request).json()["model"] == NAME


def test_other_names_are_refused_unless_the_operator_takes_all(house: House) -> None:
    assert error_of(house.ask(model="gpt-4o"), 404)["code"] == "model_not_found"
    with open_house(accept_any_model=True) as generous:
        reply = generous.ask(model="gpt-4o")
        assert reply.json()["model"] == NAME


# ---- A ceiling is not a demand


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_more_tokens_than_there_is_room_for_are_cut_to_the_room(house: House, name: str) -> None:
    assert house.ask(**{name: 1_000_000}).status_code == 200
    request = house.last_request
    assert request.sampling.max_tokens == house.engine.max_model_len - len(request.prompt.token_ids)


def test_a_prompt_that_does_not_fit_is_still_refused(house: House) -> None:
    error = error_of(house.ask("x" * (house.engine.max_model_len + 1), max_tokens=1), 400)
    assert error["code"] == "context_length_exceeded"


# ---- Replies


def test_whole_replies_and_chunks_carry_the_small_print(house: House) -> None:
    whole = house.ask().json()
    assert whole["choices"][0]["message"]["annotations"] == []
    assert whole["system_fingerprint"].startswith("fp_")
    assert whole["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0
    first, *rest = chunks(house.ask(stream=True).content)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    for chunk in (first, *rest):
        assert chunk["system_fingerprint"] == whole["system_fingerprint"]
        assert chunk["service_tier"] == "default"
    assert all("refusal" not in chunk["choices"][0]["delta"] for chunk in rest)


def test_the_fingerprint_tells_models_and_numbers_apart() -> None:
    found = set()
    for settings in ({}, {"dtype": "float32"}, {"engine_args": {"seed": 1}}):
        with open_house(**settings) as house:
            found.add(house.ask().json()["system_fingerprint"])
    assert len(found) == 3


def test_usage_tells_the_tokens_of_pictures_and_clips(house: House) -> None:
    picture = image_url(data_url(plain(RED)))
    asked = body([picture, picture], return_media_info=True)
    reply = house.post(asked).json()
    seen = reply["usage"]["prompt_tokens_details"]
    assert seen["image_tokens"] == sum(one["tokens"] for one in reply["media_info"]) > 0
    assert seen["video_tokens"] == 0
    streamed = chunks(house.post(asked | {"stream": True, "stream_options": {"include_usage": True}}).content)
    assert streamed[-1]["usage"] == reply["usage"]


# ---- Compressed bodies


@pytest.mark.parametrize(
    ("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)], ids=["gzip", "deflate"]
)
def test_a_compressed_body_is_read(house: House, coding: str, compress: object) -> None:
    assert callable(compress)
    content = compress(json.dumps(body()).encode() + b" " * 100_000)
    headers = {"content-type": "application/json", "content-encoding": coding}
    assert house.http.post(CHAT, content=content, headers=headers).status_code == 200


def test_what_comes_out_of_a_compressed_body_counts() -> None:
    with open_house(max_body_mib=1) as house:
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        bomb = gzip.compress(b" " * (64 << 20))
        assert len(bomb) < 1 << 17
        error_of(house.http.post(CHAT, content=bomb, headers=headers), 413)
        assert house.services.bodies.held == 0
        assert house.ask().status_code == 200


@pytest.mark.parametrize(("coding", "status"), [("br", 415), ("gzip", 400)])
def test_a_body_that_cannot_be_read_is_refused_in_words(house: House, coding: str, status: int) -> None:
    headers = {"content-type": "application/json", "content-encoding": coding}
    error = error_of(house.http.post(CHAT, content=b"{}", headers=headers), status)
    assert "Content-Encoding" in error["message"]


# ---- Browsers


@pytest.mark.parametrize("settings", [{}, {"cors_origins": ["https://example.org"]}], ids=["none", "others"])
def test_a_preflight_that_is_not_allowed_says_which_setting_would_allow_it(settings: dict[str, list[str]]) -> None:
    with open_house(Script(), **settings) as house:
        asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
        error = error_of(house.http.options(CHAT, headers=asked), 403)
        assert "--cors-origins" in error["message"]
        assert "https://app.example" in error["message"]
