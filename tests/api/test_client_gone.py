"""A client that goes away takes its work with it: engine and house are free again within two seconds."""

from __future__ import annotations

import socket

import pytest

from server.engine.scripted import Script
from tests.api.gallery import Gallery
from tests.api.house import CHAT, House, body, image_url
from tests.waiting import eventually


def requests_that_ended(house: House, status: str) -> float:
    sample = f'ain_http_requests_total{{method="POST",route="{CHAT}",status="{status}"}} '
    lines = house.http.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(sample)) for line in lines if line.startswith(sample))


@pytest.mark.parametrize("stream", [False, True])
def test_before_the_first_token(house: House, stream: bool) -> None:
    house.engine.script = Script(first_delay=60)
    client = house.raw_chat(body(stream=stream))
    assert eventually(lambda: house.engine.running == 1)
    client.close()
    assert eventually(lambda: house.at_rest)


def test_in_mid_answer(house: House) -> None:
    house.engine.script = Script(delay=0.01, repeat=1000)
    client = house.raw_chat(body())
    assert eventually(lambda: house.engine.running == 1)
    client.close()
    assert eventually(lambda: house.at_rest)


@pytest.mark.parametrize("n", [1, 3])
def test_in_mid_stream(house: House, n: int) -> None:
    house.engine.script = Script(delay=0.01, repeat=1000)
    with house.http.stream("POST", CHAT, json=body(stream=True, n=n)) as response:
        pieces = response.iter_raw()
        assert b"assistant" in next(pieces)
        assert house.engine.running == 1
    assert eventually(lambda: house.at_rest)


def test_in_a_stream_that_has_stalled(house: House) -> None:
    house.engine.script = Script(stall_after=2)
    with house.http.stream("POST", CHAT, json=body(stream=True)) as response:
        pieces = response.iter_raw()
        assert b"assistant" in next(pieces)
    assert eventually(lambda: house.at_rest)


def test_by_a_broken_connection(house: House) -> None:
    """A reset, as from a client that was killed."""
    house.engine.script = Script(delay=0.01, repeat=1000)
    client = house.raw_chat(body(stream=True))
    assert client.recv(1 << 16)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    client.close()
    assert eventually(lambda: house.at_rest)


@pytest.mark.parametrize("stream", [False, True])
def test_while_a_picture_is_being_fetched(house: House, gallery: Gallery, stream: bool) -> None:
    before = gallery.waiting
    client = house.raw_chat(body([image_url(gallery.url("/slow"))], stream=stream))
    assert eventually(lambda: gallery.waiting == before + 1)
    assert house.services.gate.inside == 1
    client.close()
    assert eventually(lambda: house.at_rest)
    assert house.engine.requests == []


def test_is_counted_apart_from_failures(house: House) -> None:
    before = {status: requests_that_ended(house, status) for status in ("499", "500")}
    house.engine.script = Script(first_delay=60)
    house.raw_chat(body()).close()
    house.raw((f"POST {CHAT} HTTP/1.1", "Content-Length: 100"), b'{"model":').close()
    assert eventually(lambda: requests_that_ended(house, "499") == before["499"] + 2)
    assert requests_that_ended(house, "500") == before["500"]


def test_many_at_once_leave_nothing_behind(house: House) -> None:
    house.engine.script = Script(delay=0.01, repeat=1000)
    clients = [house.raw_chat(body(stream=index % 2 == 0)) for index in range(30)]
    assert eventually(lambda: house.engine.running == 30)
    for client in clients:
        client.close()
    assert eventually(lambda: house.at_rest)


def test_a_slow_reader_is_no_leaver(house: House) -> None:
    house.engine.script = Script(words=("x" * 1000,), repeat=2000)
    received = b""
    with house.raw_chat(body(stream=True)) as client:
        assert eventually(lambda: house.engine.requests)
        while not received.endswith(b"0\r\n\r\n"):
            piece = client.recv(1 << 20)
            assert piece
            received += piece
    assert received.count(b"x" * 1000) == 2000
