"""A keys file is taken as it is now, not as it was at the start."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from server.admission.keys import new_key
from server.engine.scripted import Script
from tests.api.house import House, body, chunks, error_of, open_house
from tests.model import MODEL
from tests.serving import serve
from tests.waiting import eventually

OLD, NEW = new_key(), new_key()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def status(house: House, key: str) -> int:
    return house.http.get("/v1/models", headers=bearer(key)).status_code


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "keys"
    file.write_text(f"desk = {OLD}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def house(file: Path) -> Iterator[House]:
    with open_house(Script(delay=0.05, repeat=500), api_keys_file=file) as house:
        yield house


def test_a_new_key_opens_the_server_and_a_revoked_one_does_not_any_more(house: House, file: Path) -> None:
    assert (status(house, OLD), status(house, NEW)) == (200, 401)
    file.write_text(f"desk = {NEW}\n")
    assert eventually(lambda: (status(house, OLD), status(house, NEW)) == (401, 200))


def test_a_file_that_another_takes_the_place_of_is_seen(house: House, file: Path, tmp_path: Path) -> None:
    """As editors do it, and Kubernetes with its secrets."""
    other = tmp_path / "other"
    other.write_text(f"desk = {OLD}\nhall = {NEW}\n")
    other.replace(file)
    assert eventually(lambda: (status(house, OLD), status(house, NEW)) == (200, 200))


@pytest.mark.parametrize(
    "broken",
    ["", "desk = short\n", f"desk = {NEW}\ndesk = {OLD}\n", f"{NEW}\n\xff\n"],
    ids=["empty", "a short key", "a name twice", "no text"],
)
def test_a_broken_file_is_refused_as_a_whole_and_the_old_keys_stay(house: House, file: Path, broken: str) -> None:
    def refused() -> bool:
        return "ain_keys_file_refused 1.0" in house.http.get("/metrics", headers=bearer(OLD)).text

    file.write_bytes(broken.encode("latin-1"))
    assert eventually(refused)
    assert (status(house, OLD), status(house, NEW)) == (200, 401)
    file.unlink()
    file.write_text(f"desk = {OLD}\nhall = {NEW}\n")
    assert eventually(lambda: status(house, NEW) == 200)
    assert not refused()


def test_a_stream_of_a_revoked_key_ends_and_says_why(house: House, file: Path) -> None:
    with house.http.stream("POST", "/v1/chat/completions", json=body(stream=True), headers=bearer(OLD)) as reply:
        received = reply.iter_raw()
        first = next(received)
        file.write_text(f"desk = {NEW}\n")
        rest = first + b"".join(received)
    last = chunks(rest)[-1]
    assert last["error"]["code"] == "invalid_api_key"
    assert "revoked" in last["error"]["message"]
    assert eventually(lambda: house.at_rest)


def test_a_key_that_was_given_another_name_is_still_the_same_key(house: House, file: Path) -> None:
    with house.http.stream("POST", "/v1/chat/completions", json=body(stream=True), headers=bearer(OLD)) as reply:
        received = reply.iter_raw()
        first = next(received)
        file.write_text(f"hall = {OLD}\ndesk = {NEW}\n")
        assert eventually(lambda: status(house, NEW) == 200)
        file.write_text(f"desk = {NEW}\n")
        assert chunks(first + b"".join(received))[-1]["error"]["code"] == "invalid_api_key"


def test_a_whole_answer_of_a_revoked_key_does_not_come(house: House, file: Path) -> None:
    replies = []

    def ask() -> None:
        replies.append(house.http.post("/v1/chat/completions", content=json.dumps(body()), headers=bearer(OLD)))

    asking = threading.Thread(target=ask)
    asking.start()
    assert eventually(lambda: house.engine.running == 1)
    file.write_text(f"desk = {NEW}\n")
    asking.join(60)
    assert error_of(replies[0], 401)["code"] == "invalid_api_key"
    assert eventually(lambda: house.at_rest)


def test_other_keys_streams_go_on(house: House, file: Path) -> None:
    file.write_text(f"desk = {OLD}\nhall = {NEW}\n")
    assert eventually(lambda: status(house, NEW) == 200)
    house.engine.script = Script(delay=0.05, repeat=20)
    with house.http.stream("POST", "/v1/chat/completions", json=body(stream=True), headers=bearer(NEW)) as reply:
        received = reply.iter_raw()
        first = next(received)
        file.write_text(f"hall = {NEW}\n")
        assert chunks(first + b"".join(received))[-1]["choices"][0]["finish_reason"] == "stop"
    assert eventually(lambda: status(house, OLD) == 401)


def test_a_process_reads_it_on_sighup_and_goes_on(file: Path) -> None:
    flags = ("--engine", "scripted", "--api-keys-file", str(file))
    with serve("--model", MODEL, *flags) as server, httpx.Client(base_url=server.address, trust_env=False) as client:

        def status_of(key: str) -> int:
            return client.get("/v1/models", headers=bearer(key)).status_code

        assert status_of(OLD) == 200
        file.write_text(f"desk = {NEW}\n")
        server.process.send_signal(signal.SIGHUP)
        assert eventually(lambda: (status_of(OLD), status_of(NEW)) == (401, 200))
        assert "1 revoked" in server.output()
