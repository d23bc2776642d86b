"""How many connections there may be, which give way, and that none stays for ever, in whatever state it is."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.engine.scripted import Script
from server.routes import http11
from tests.api.house import House, body, open_house
from tests.api.test_framing import LIVE, POST, Line, chunked, sized
from tests.waiting import eventually

MOST = 12


@pytest.fixture(scope="module")
def shared_house() -> Iterator[House]:
    with open_house(max_connections=MOST) as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    with shared_house.unharmed() as house:
        yield house


@contextlib.contextmanager
def lines(house: House, number: int) -> Iterator[list[Line]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Line(house)) for _ in range(number)]


def is_open(line: Line) -> bool:
    """Whether the server has not closed it."""
    line.socket.setblocking(False)
    try:
        return line.socket.recv(1, socket.MSG_PEEK) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        line.socket.settimeout(60)


# ---- How many


def test_those_that_do_nothing_give_way_the_oldest_first(house: House) -> None:
    with lines(house, MOST + 5) as opened:
        assert eventually(lambda: sum(map(is_open, opened)) <= MOST)
        still = [is_open(line) for line in opened]
        assert still == sorted(still)
        assert opened[-1].send(LIVE).reply().status == 200


def test_those_in_the_middle_of_a_head_give_way_too(house: House) -> None:
    with lines(house, MOST) as asking:
        for line in asking:
            line.send(LIVE[:20])
        time.sleep(0.2)
        with Line(house) as honest:
            assert honest.send(sized()).reply().status == 200
        assert eventually(lambda: not is_open(asking[0]))


def test_where_all_have_requests_a_new_one_is_told_that_there_is_no_room() -> None:
    with open_house(max_connections=8) as full, contextlib.ExitStack() as stack:
        full.engine.script = Script(delay=0.05, repeat=1000)
        busy = [stack.enter_context(Line(full)) for _ in range(8)]
        content = json.dumps(body(stream=True)).encode()
        for line in busy:
            line.send(sized(content))
            assert line.file.readline() == b"HTTP/1.1 200 OK\r\n"
        with Line(full) as late:
            reply = late.send(LIVE).reply()
            assert (reply.status, reply.code) == (503, "too_many_connections")
            assert reply.headers["retry-after"]
            assert late.ended()
        assert all(map(is_open, busy))


def test_an_address_may_have_a_limit_of_its_own() -> None:
    with open_house(max_connections_per_address=3) as strict, lines(strict, 3) as opened:
        for line in opened:
            assert line.send(LIVE).reply().status == 200
        with Line(strict) as late:
            assert late.reply().code == "too_many_connections"
        opened[0].socket.shutdown(socket.SHUT_RDWR)

        def enters() -> bool:
            with Line(strict) as again:
                return again.send(LIVE).reply().status == 200

        assert eventually(enters)


# ---- For how long

BEGINNINGS = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "half a line": b"GET /hea",
    "half a head": b"GET /health/live HTTP/1.1\r\nHost: l",
    "half a body": sized()[:-5],
    "half a chunk": chunked()[:-20],
    "chunks without an end": chunked()[:-5],
    "half a trailer": chunked(trailers=b"x: y")[:-2],
}
BETWEEN = {
    "nothing": b"",
    "an empty line": b"\r\n",
    "half a head": LIVE[:-3],
    "a byte of a body": sized(b"{}")[:-1],
    "one chunk": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    "half a trailer": chunked(b"{}")[:-2] + b"x:",
}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    """A server whose timers are short."""
    for name in ("HEAD_WITHIN_S", "BODY_GRACE_S", "DRAINED_WITHIN_S", "CLOSED_WITHIN_S"):
        monkeypatch.setattr(http11, name, 0.3)
    with open_house(body_timeout_s=0.3, keep_alive_s=1) as house:
        yield house


def test_no_connection_stays_for_ever_in_whatever_state_it_is(hasty: House) -> None:
    """Before the first request, between two, and with a byte now and then."""
    with contextlib.ExitStack() as stack:
        stuck = {}
        for first, sent in BEGINNINGS.items():
            stuck["", first] = stack.enter_context(Line(hasty)).send(sent)
        for after, sent in BETWEEN.items():
            for path in (LIVE, sized(), sized(b"{}")):
                line = stack.enter_context(Line(hasty)).send(path)
                line.reply()
                stuck[path.decode()[:12], after] = line.send(sent)
        left: list[object] = []

        def ended() -> bool:
            left[:] = [name for name, line in stuck.items() if not line.drained()]
            return not left

        assert eventually(ended), left


def test_a_byte_now_and_then_keeps_no_connection(hasty: House) -> None:
    drops = {"a head": (b"", b"G"), "empty lines": (b"", b"\r\n"), "a body": (sized()[:-200], b" ")}
    for name, (first, drop) in drops.items():
        with Line(hasty) as line:
            line.send(first)

            def cut(line: Line = line, drop: bytes = drop) -> bool:
                with contextlib.suppress(OSError):
                    line.send(drop)
                time.sleep(0.05)
                return line.drained()

            assert eventually(cut), name


# ---- Whatever is sent

PIECES = [
    LIVE,
    LIVE[:-2],
    LIVE.replace(b"1.1", b"1.0"),
    sized(),
    sized(b"{}"),
    chunked(),
    chunked(trailers=b"a: b\r\n"),
    POST,
    POST + b"Transfer-Encoding: chunked\r\n\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET ",
    b" HTTP/1.1\r\n",
    b"x: y\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"\x00",
]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(walk=st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=8), half_closed=st.booleans())
def test_a_walk_over_all_states_gets_no_more_answers_than_it_asked(
    shared_house: House, walk: list[bytes], half_closed: bool
) -> None:
    """Every head is answered at most once; whatever else came, the server goes on."""
    asked = b"".join(walk).count(b"HTTP/") + b"".join(walk).count(b"PRI ") + 1
    with Line(shared_house) as line:
        with contextlib.suppress(OSError):
            line.send(*walk)
            if half_closed:
                line.socket.shutdown(socket.SHUT_WR)
        line.socket.settimeout(0.05)
        received = b""
        with contextlib.suppress(OSError):
            while block := line.socket.recv(65_536):
                received += block
    statuses = [part.split(b" ", 1)[0] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert len([status for status in statuses if status != b"100"]) <= asked
    assert not {b"500", b"502"} & set(statuses)
    with Line(shared_house) as line:
        assert line.send(LIVE).reply().status == 200


def test_a_client_that_has_gone_is_told_from_one_that_has_only_said_all() -> None:
    """Both send the end of the stream; to the first any byte brings a reset."""
    with open_house(Script(delay=0.05, repeat=20)) as house:
        content = json.dumps(body()).encode()
        with Line(house) as gone:
            gone.send(sized(content))
            assert eventually(lambda: house.engine.running == 1)
        assert eventually(lambda: house.engine.running == 0, 3)  # the answer would take 4 s
        with Line(house) as listening:
            replies = []
            listening.send(sized(content)).socket.shutdown(socket.SHUT_WR)
            reader = threading.Thread(target=lambda: replies.append(listening.reply()))
            reader.start()
            reader.join(60)
            assert replies[0].status == 200
