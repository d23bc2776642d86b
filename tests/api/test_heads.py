"""Requests whose head is too large, too slow, or no HTTP at all: answered or ended before any of the app runs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from server.routes import http11
from tests.api.house import House, open_house


def answer(connection: socket.socket) -> tuple[int, dict[str, Any]]:
    """Status and error of a reply after which the connection must end."""
    received = b""
    while block := connection.recv(65_536):
        received += block
    head, _, body = received.partition(b"\r\n\r\n")
    assert b"connection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]


def connect(house: House) -> socket.socket:
    return socket.create_connection(("127.0.0.1", house.port), timeout=60)


@pytest.fixture(scope="module")
def shared_house() -> Iterator[House]:
    with open_house() as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    with shared_house.unharmed() as house:
        yield house


@pytest.mark.parametrize(
    "headers",
    [
        b"x: " + b"a" * http11.MAX_HEAD_BYTES,
        b"".join(b"x-%d: a\r\n" % number for number in range(http11.MAX_HEAD_BYTES // 8)).rstrip(),
    ],
    ids=["one", "many"],
)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "without an end"])
def test_headers_that_are_too_large_are_a_431(house: House, headers: bytes, whole: bool) -> None:
    with connect(house) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + headers + (b"\r\n\r\n" if whole else b""))
        status, error = answer(connection)
    assert (status, error["code"], error["type"]) == (431, "invalid_http", "invalid_request_error")


def test_headers_below_the_bound_are_read(house: House) -> None:
    value = "a" * (http11.MAX_HEAD_BYTES - 1000)
    for _ in range(3):  # on one connection: each request has the whole bound for itself
        assert house.http.get("/health", headers={"x": value}).status_code == 200


@pytest.mark.parametrize("nonsense", [b"\x16\x03\x01\x02\x00", b"HELLO\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
def test_what_is_no_http_is_a_400_in_openais_shape(house: House, nonsense: bytes) -> None:
    with connect(house) as connection:
        connection.sendall(nonsense + b"\r\n\r\n")
        status, error = answer(connection)
    assert (status, error["message"]) == (400, "Invalid HTTP request received.")


@pytest.mark.parametrize("begun", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: localhost\r\nx-slow: "])
def test_a_head_that_does_not_come_ends_the_connection(monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    monkeypatch.setattr(http11, "HEAD_WITHIN_S", 0.2)
    with open_house() as slow, connect(slow) as connection:
        connection.sendall(begun)
        assert connection.recv(1) == b""
        assert slow.ask().status_code == 200


def test_an_answer_that_takes_longer_than_a_head_may_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    from server.engine.scripted import Script

    monkeypatch.setattr(http11, "HEAD_WITHIN_S", 0.1)
    with open_house(Script(first_delay=0.5)) as slow:
        assert slow.ask().status_code == 200
