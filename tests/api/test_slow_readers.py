"""Streams on slow or silent lines: nobody is taken for dead who is not, and who is does not hold a place."""

from __future__ import annotations

import contextlib
import json
import socket
import time

import openai

from server.engine.scripted import Script
from tests.api.house import CHAT, House, body, open_house
from tests.api.test_overload import reading
from tests.model import NAME
from tests.waiting import eventually

PING = b": ping\n\n"
LARGE = Script(words=("x" * 10_000,), repeat=2_000)
"""A stream that no buffer on the way holds: 20 MB."""


def narrow_line(house: House, receive_buffer: int = 4096, **more: object) -> socket.socket:
    """A request over a connection that takes up little of its reply until somebody reads."""
    content = json.dumps(body(**more)).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", house.port))
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.sendall(head.encode() + content)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """What comes until the end, orderly or not."""
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 20):
            pieces.append(piece)
            if piece.endswith(b"0\r\n\r\n"):
                break
    return b"".join(pieces)


# ---- Silence


def test_a_silent_stream_carries_comments() -> None:
    with open_house(ping_s=0.05) as house:
        house.engine.script = Script(stall_after=2)
        seen = b""
        with house.http.stream("POST", CHAT, json=body(stream=True)) as response:
            for piece in response.iter_raw():
                seen += piece
                if seen.count(PING) >= 3:
                    break
        *frames, rest = seen.replace(PING, b"").split(b"\n\n")
        assert rest == b""
        assert all(frame.startswith(b"data: ") for frame in frames)
        assert eventually(lambda: house.at_rest)


def test_a_stream_that_flows_carries_none() -> None:
    with open_house(ping_s=2.0) as house:
        house.engine.script = Script(delay=0.01, repeat=5)
        assert PING not in house.ask(stream=True).content


def test_comments_do_no_harm_to_openais_clients() -> None:
    with open_house(ping_s=0.02) as house:
        house.engine.script = Script(delay=0.1)
        with openai.OpenAI(base_url=f"{house.url}/v1", api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                model=NAME, messages=[{"role": "user", "content": "Hello"}], stream=True
            )
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert text == "Scripted answer مرحبا."
        assert PING in house.ask(stream=True).content, "there were some"


def test_a_client_that_goes_away_in_the_silence_frees_its_place() -> None:
    with open_house(ping_s=0.02) as house:
        house.engine.script = Script(stall_after=1)
        client = house.raw_chat(body(stream=True))
        received = b""
        while PING not in received:
            received += client.recv(1 << 16)
        client.close()
        assert eventually(lambda: house.at_rest)


# ---- Readers


def test_a_reader_that_reads_nothing_is_cut_off_and_its_place_is_free() -> None:
    with open_house(stalled_timeout_s=0.5) as house:
        before = reading(house, "ain_connections_stalled_total")
        house.engine.script = LARGE
        with narrow_line(house, stream=True) as client:
            assert eventually(lambda: house.engine.running == 1)
            assert eventually(lambda: house.at_rest)
            assert reading(house, "ain_connections_stalled_total") == before + 1
            assert len(read_all(client)) < 20_000_000
        house.engine.script = Script()
        assert house.ask().status_code == 200


def test_a_reader_that_reads_nothing_of_a_whole_reply_is_cut_off_too() -> None:
    with open_house(stalled_timeout_s=0.5) as house:
        house.engine.script = LARGE
        before = reading(house, "ain_connections_stalled_total")
        with narrow_line(house):
            assert eventually(lambda: house.engine.requests)
            assert eventually(lambda: reading(house, "ain_connections_stalled_total") == before + 1)
        assert eventually(lambda: house.at_rest)


def test_a_reader_that_is_only_slow_is_not_cut_off() -> None:
    with open_house(stalled_timeout_s=1.0) as house:
        house.engine.script = LARGE
        with narrow_line(house, 1 << 18, stream=True) as client:
            received, began = 0, time.monotonic()
            while time.monotonic() - began < 2.5:
                received += len(client.recv(1 << 18))
                time.sleep(0.05)
            assert house.engine.running == 1, "it is still waiting for its reader"
            received += len(read_all(client))
        assert received > 20_000_000
        assert eventually(lambda: house.at_rest)


# ---- The end of the server


def test_a_stream_that_is_cut_by_the_end_of_the_server_says_so() -> None:
    with open_house() as house:
        house.engine.script = Script(stall_after=2)
        client = house.raw_chat(body(stream=True))
        received = b""
        while b" answer" not in received:
            received += client.recv(1 << 16)
    with client:  # what the server said at its end is still on the way
        while piece := client.recv(1 << 16):
            received += piece
    assert b'"code":"draining"' in received
    assert b"data: [DONE]\n\n" in received
    assert house.at_rest
