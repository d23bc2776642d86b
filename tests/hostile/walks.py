"""Random walks over the states of a connection, forty connections at a time, for minutes.

    make walks ARGS="--minutes 10"          each run has another seed; ARGS="--seed N" repeats one

A walk is whole requests, parts of them and noise, damaged at random, with pauses in between and silence at the end.
Every connection must end within the timers of its states, which are short here; no more may be answered than was
asked, nothing but 401 without the key, and never with a failure of the server; afterwards nothing is left of them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import secrets
import sys
import time
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Final
from unittest import mock

from server.routes import http11
from tests.api.house import CHAT, House, open_house
from tests.api.test_framing import HELLO, LIVE, chunked, sized
from tests.waiting import eventually

KEY: Final = "ain-a-key-of-the-walkers-1"
AT_ONCE: Final = 40
STEPS: Final = 8
TIMER_S: Final = 0.4
"""In place of the server's 2 to 15 seconds; the settings know whole seconds, hence one for what they bound."""
ENDED_WITHIN_S: Final = 20.0
"""After the last byte: one timer of each state, on a busy machine."""
REPORT_S: Final = 10.0
GUARDED: Final = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
OWN: Final = GUARDED + f"Authorization: Bearer {KEY}\r\n".encode()
PIECES: Final = (
    LIVE,
    LIVE.replace(b"1.1", b"1.0"),
    LIVE.replace(b"GET", b"HEAD"),
    *(sized(head=head) for head in (GUARDED, OWN)),
    *(chunked(head=head, trailers=trailers, size=7) for head in (GUARDED, OWN) for trailers in (b"", b"a: b\r\n")),
    chunked(head=GUARDED, trailers=f"Authorization: Bearer {KEY}\r\n".encode()),
    sized(LIVE, head=OWN),
    sized(sized(head=OWN), head=GUARDED),
    OWN + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(HELLO),
    OWN + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    OWN + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(HELLO) + HELLO,
    b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    HELLO,
    b"GET ",
    b" HTTP/1.1\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"ffffffffffffffff\r\n",
    b"5;" + b"x" * 3000,
    b"a: " + b"b" * 70_000,
    b"\0",
)


@dataclass(frozen=True)
class Walk:
    """What is sent, and how long is waited before each piece."""

    pieces: tuple[bytes, ...]
    pauses: tuple[float, ...]
    half_closed: bool
    reads: bool

    def most_answers(self) -> int:
        """No request is shorter than the name of its protocol; the rest may be refused once."""
        sent = b"".join(self.pieces)
        return sent.count(b"HTTP/") + 1

    def has_key(self) -> bool:
        return KEY.encode() in b"".join(self.pieces)


def walk(random: Random) -> Walk:
    """A walk like no other."""
    pieces = tuple(_damaged(random.choice(PIECES), random) for _ in range(random.randint(1, STEPS)))
    pauses = tuple(random.choice((0, 0, 0, 0.01, TIMER_S * random.random() * 2)) for _ in pieces)
    return Walk(pieces, pauses, random.random() < 0.3, random.random() < 0.9)


def _damaged(piece: bytes, random: Random) -> bytes:
    """As it is, cut, with a byte changed, without a stretch, or with something in the middle."""
    at, end = sorted(random.randint(0, len(piece)) for _ in range(2))
    match random.randint(0, 9):
        case 0:
            return piece[:at]
        case 1:
            return piece[:at] + random.randbytes(1) + piece[at + 1 :]
        case 2:
            return piece[:at] + piece[end:]
        case 3:
            return piece[:at] + random.choice(PIECES) + piece[at:]
        case _:
            return piece


async def go(port: int, path: Walk) -> bytes:
    """Walk, then say nothing more; what came back until the server closed. Raises TimeoutError where it does not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        received = asyncio.create_task(_read(reader))
        with contextlib.suppress(OSError):
            for piece, pause in zip(path.pieces, path.pauses, strict=True):
                await asyncio.sleep(pause)
                if writer.is_closing():
                    break
                writer.write(piece)
            if path.half_closed:
                writer.write_eof()
        async with asyncio.timeout(ENDED_WITHIN_S):
            return await received
    finally:
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionError):
        while block := await reader.read(1 << 16):
            received += block
    return received


def fault_of(path: Walk, received: bytes) -> str:
    """What is wrong with the answers to a walk; empty where nothing is."""
    statuses = [part.split(b" ", 1)[0].decode() for part in received.split(b"HTTP/1.1 ")[1:]]
    final = [status for status in statuses if status != "100"]
    if len(final) > path.most_answers():
        return f"{len(final)} answers to at most {path.most_answers()} requests"
    if {"500", "502"} & set(final):
        return f"statuses {final}"
    if not path.has_key() and b"chat.completion" in received:
        return "answered without a key"
    return ""


async def walk_for(house: House, seconds: float, seed: int) -> tuple[Counter[str], list[str]]:
    """Walks until the time is over; how often which status came, and what was wrong."""
    random, until = Random(seed), time.monotonic() + seconds
    statuses: Counter[str] = Counter()
    faults: list[str] = []

    async def walker() -> None:
        while time.monotonic() < until and len(faults) < 10:
            path = walk(random)
            try:
                received = await go(house.port, path)
                fault = fault_of(path, received)
            except TimeoutError:
                received, fault = b"", f"still open after {ENDED_WITHIN_S:g} s"
            statuses.update(part[:3].decode("latin-1") for part in received.split(b"HTTP/1.1 ")[1:])
            statuses["walks"] += 1
            if fault:
                faults.append(f"{fault}: {path}")

    async def reporter() -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            print(f"{statuses['walks']} walks, {max(0, until - time.monotonic()):.0f} s left", flush=True)

    report = asyncio.create_task(reporter())
    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(AT_ONCE):
                tasks.create_task(walker())
    finally:
        report.cancel()
    return statuses, faults


def main() -> int:
    """Walk, and tell what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it tells of writing to what the server has closed
    timers = dict.fromkeys(("HEAD_WITHIN_S", "DRAINED_WITHIN_S", "CLOSED_WITHIN_S", "BODY_GRACE_S"), TIMER_S)
    bounds = {"keep_alive_s": 1, "body_timeout_s": 1.0, "stalled_timeout_s": 1.0}
    with mock.patch.multiple(http11, **timers), open_house(api_keys=[KEY], **bounds) as house:
        statuses, faults = asyncio.run(walk_for(house, arguments.minutes * 60, arguments.seed))
        if not eventually(lambda: house.engine.running == 0 and house.services.bodies.held == 0):
            faults.append("requests or bodies are left in the server")
        if house.http.get("/health/live").status_code != 200:
            faults.append("the server does not answer any more")
    print(", ".join(f"{name}: {number}" for name, number in sorted(statuses.items())))
    for fault in faults:
        print(f"FAULT {fault}")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
