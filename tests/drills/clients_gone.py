"""Drills in which clients go: in the middle of their answers, in all but name, or because the server itself goes."""

from __future__ import annotations

import contextlib
import math
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import psutil

from tests.drills.asking import (
    CUT,
    REFUSED,
    WHOLE,
    Exchange,
    about_picture,
    address_of,
    await_begun,
    new_numbers,
    none_but,
    raw_request,
    request,
    seconds_until,
    wait,
    words,
)
from tests.drills.drill import Figure, Plan, at_least, at_most, exactly, percentile, told
from tests.drills.house import DRAIN_S, MODEL, House, open_house
from tests.serving import runs

ENDLESS_TOKENS: Final = 3500
"""An answer of so many is not over before the drill is."""
AT_BASELINE: Final = (
    "ain_requests_inside",
    "ain_requests_running",
    "ain_prefill_tokens",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
)
"""What a request takes, and gives back whatever becomes of it."""
FREED_WITHIN_S: Final = 2.0
FETCH_FREED_WITHIN_S: Final = 5.0
EARLY_S: Final = 0.25
"""Two clocks may differ by so much."""
ENDED_WITHIN_S: Final = 5.0
HURRIED_S: Final = 3.0
"""After a second SIGTERM."""
HEAD_WITHIN_S: Final = 15.0
"""What a server gives a connection to send its headers."""
GROWTH_MIB: Final = 64.0


FEW_DESCRIPTORS = 4
"""Of files that are just being looked into; each client that is not let go of would keep one."""


def vanished_clients(plan: Plan) -> Iterator[Figure]:
    """Clients vanish in mid-stream, half of them with a reset; and while a picture of theirs is being fetched."""
    with open_house(plan) as house:
        wait(house.crowd.ask_all([words(number, stream=True, max_tokens=8) for number in new_numbers(8)]), 60)
        house.probe.await_idle()
        baseline, descriptors = _levels(house), house.descriptors()
        streams = house.crowd.ask_all(
            [words(number, stream=True, max_tokens=ENDLESS_TOKENS) for number in new_numbers(plan.size(200, 40))]
        )
        await_begun(streams)
        yield from _figures_of_vanishing("vanish/stream", house, streams, baseline, FREED_WITHIN_S)
        with SlowHost() as host:
            fetches = house.crowd.ask_all([_with_picture_at(host.url) for _ in range(plan.size(100, 20))])
            seconds_until(lambda: host.visitors > 0 and _levels(house)["ain_requests_inside"] == len(fetches), 10)
            yield from _figures_of_vanishing("vanish/fetch", house, fetches, baseline, FETCH_FREED_WITHIN_S)
        seconds_until(lambda: house.descriptors() <= descriptors, FREED_WITHIN_S)
        yield at_most("vanish/descriptors-more", max(0, house.descriptors() - descriptors), FEW_DESCRIPTORS)
        after = house.crowd.answer(words(new_numbers(1)[0], stream=True, max_tokens=8))
        yield none_but("vanish/not-answered-thereafter", [after], WHOLE)


def stalled_clients(plan: Plan) -> Iterator[Figure]:
    """Readers that never read, connections that send a byte a second, and a full disk, while others ask honestly.

    The disk is left alone where this user may not mount a small one.
    """
    _allow_descriptors()
    model = MODEL if plan.short else "ain-" + "x" * 996  # see MODEL
    with open_house(plan, model=model) as house:
        server = psutil.Process(house.server.process.pid)
        _ask_honestly(house, 16)
        quiet = _ask_honestly(house, plan.size(100, 30))
        house.probe.await_idle()
        memory, cut = server.memory_info().rss, _stalled(house)
        house.disk.fill()
        with (
            Readers(house, plan) as readers,
            Dribblers(house, plan) as slow,
        ):
            loud: list[Exchange] = []
            while not (readers.all_sent and slow.all_closed) and slow.seconds < 4 * HEAD_WITHIN_S:
                loud += _ask_honestly(house, 8)
            peak = server.memory_info().rss
            cut_after = seconds_until(lambda: _stalled(house) - cut >= readers.count, 30) + readers.seconds_since_last
            yield exactly("stalled/readers-not-cut", max(0, readers.count - (_stalled(house) - cut)), 0)
            yield told("stalled/last-reader-cut-after", cut_after, "s")
            yield exactly("stalled/dribblers-not-cut", slow.open, 0)
            yield told("stalled/last-dribbler-cut-after", slow.longest, "s")
        yield exactly("stalled/disk-was-full", house.disk.is_full(), house.disk.is_small)
        house.disk.free_up()
        yield from _figures_of_honest(quiet, loud)
        house.probe.await_idle()
        yield told("stalled/memory-more-at-most", (peak - memory) / 2**20, "MiB")
        yield at_most("stalled/memory-more", (server.memory_info().rss - memory) / 2**20, GROWTH_MIB, "MiB")


def drained_server(plan: Plan) -> Iterator[Figure]:
    """Send SIGTERM with streams under way: some end in time, the rest at the limit, and the server after them."""
    half = plan.size(25, 10)
    with open_house(plan) as house:
        short = house.crowd.ask_all([words(number, stream=True, max_tokens=100) for number in new_numbers(half)])
        longer = house.crowd.ask_all(
            [words(number, stream=True, max_tokens=ENDLESS_TOKENS) for number in new_numbers(half)]
        )
        await_begun([*short, *longer])
        family, at = house.server.family(), _terminate(house)
        unready = seconds_until(lambda: not house.probe.is_ready(), 10)
        yield at_most("drain/not-ready-within", unready, 1, "s")
        newcomer = house.crowd.answer(words(new_numbers(1)[0], stream=False))
        yield none_but("drain/newcomer-not-sent-away", [newcomer], REFUSED)
        wait([*short, *longer], DRAIN_S + ENDED_WITHIN_S)
        yield none_but("drain/short-not-whole", short, WHOLE)
        yield none_but("drain/longer-not-cut-properly", longer, CUT)
        yield at_least("drain/first-cut-after", min(one.ended - at for one in longer), DRAIN_S - EARLY_S, "s")
        yield from _figures_of_end("drain", house, family, at, DRAIN_S + ENDED_WITHIN_S)
    if not plan.short:
        yield from _hurried()


def _hurried() -> Iterator[Figure]:
    """A second SIGTERM ends the server at once."""
    with open_house(Plan()) as house:
        streams = house.crowd.ask_all(
            [words(number, stream=True, max_tokens=ENDLESS_TOKENS) for number in new_numbers(20)]
        )
        await_begun(streams)
        family = house.server.family()
        _terminate(house)
        time.sleep(1)
        at = _terminate(house)
        wait(streams, HURRIED_S)
        yield none_but("drain/hurried-not-cut-properly", streams, CUT)
        yield from _figures_of_end("drain/hurried", house, family, at, HURRIED_S)


def _terminate(house: House) -> float:
    """Send SIGTERM; the moment at which it was sent."""
    house.server.process.send_signal(signal.SIGTERM)
    return time.monotonic()


def _figures_of_end(
    name: str, house: House, family: Sequence[psutil.Process], at: float, within_s: float
) -> Iterator[Figure]:
    seconds_until(lambda: house.server.process.poll() is not None, within_s)
    status = house.server.process.poll()
    yield at_most(f"{name}/ended-after", time.monotonic() - at, within_s, "s")
    yield exactly(f"{name}/exit-status", math.inf if status is None else status, 0)
    seconds_until(lambda: not any(map(runs, family)), 1)
    yield exactly(f"{name}/processes-left", sum(map(runs, family)), 0)


# ---- vanish


def _figures_of_vanishing(
    name: str, house: House, exchanges: Sequence[Exchange], baseline: dict[str, float], within_s: float
) -> Iterator[Figure]:
    yield exactly(f"{name}/under-way", _levels(house)["ain_requests_inside"], len(exchanges))
    house.crowd.vanish(exchanges)
    freed = seconds_until(lambda: _levels(house) == baseline, within_s + 10)
    if math.isinf(freed):
        print(f"{name}: {_levels(house)} where it was {baseline}")
    yield at_most(f"{name}/given-back-within", freed, within_s, "s")


def _levels(house: House) -> dict[str, float]:
    now = house.probe.metrics()
    return {name: now[name] for name in AT_BASELINE}


def _with_picture_at(url: str) -> dict[str, Any]:
    number = new_numbers(1)[0]
    content = [{"type": "image_url", "image_url": {"url": f"{url}/{number}.png"}}]
    return request(content, stream=number % 2 == 0, max_tokens=8)


class SlowHost:
    """A web server on loopback that begins to send a picture to everybody, and never goes on."""

    HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 100000\r\n\r\n\x89PNG"

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, name="slow-host", daemon=True)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> SlowHost:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # which wakes `accept`
        self._thread.join()
        for connection in (*self._connections, self._listener):
            connection.close()

    @property
    def visitors(self) -> int:
        """How many have come so far."""
        return len(self._connections)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                connection.sendall(self.HEAD)


# ---- stalled


class Readers:
    """Clients that ask for streams, so many a second, and never read a byte of them."""

    WINDOW = 1
    """Asked for as a receive buffer; the kernel takes the least that it has."""
    SEGMENT = 1460
    """As over Ethernet. With the segments of loopback the server's kernel would buffer megabytes for each."""

    def __init__(self, house: House, plan: Plan) -> None:
        self.count = plan.size(500, 50)
        self.all_sent = False
        self._last = math.inf
        self._house = house
        self._pause_s = 1 / plan.size(25, 12)
        self._tokens = plan.size(150, 400)
        """Enough to fill all buffers between the engine and the client, and not much more for the engine to do."""
        self._address = address_of(house.server)
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._send, name="readers", daemon=True)

    def __enter__(self) -> Readers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        for connection in self._connections:
            connection.close()

    @property
    def seconds_since_last(self) -> float:
        """Since the last of them has asked."""
        return time.monotonic() - self._last

    def _send(self) -> None:
        for number in new_numbers(self.count):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.WINDOW)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, self.SEGMENT)
            connection.connect(self._address)
            connection.sendall(raw_request(self._house.server, words(number, stream=True, max_tokens=self._tokens)))
            self._connections.append(connection)
            time.sleep(self._pause_s)
        self._last = time.monotonic()
        self.all_sent = True


class Dribblers:
    """Connections that send the head of a request a byte at a time, all of them at once."""

    HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nx-slow: "
    EVERY_S = 1.0

    def __init__(self, house: House, plan: Plan) -> None:
        self.open = self._count = plan.size(5000, 500)
        self.longest = 0.0
        """How long one was open."""
        self._address = address_of(house.server)
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._dribble, name="dribblers", daemon=True)

    def __enter__(self) -> Dribblers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def all_closed(self) -> bool:
        """Whether the server has closed all of them."""
        return self.open == 0

    @property
    def seconds(self) -> float:
        """Since they began."""
        return time.monotonic() - self._began

    def _dribble(self) -> None:
        opened: dict[socket.socket, float] = {}
        for _ in range(self._count):
            connection = socket.create_connection(self._address)
            connection.setblocking(False)
            opened[connection] = time.monotonic()
        sent = 0
        while opened and not self._stop.wait(self.EVERY_S):
            byte = self.HEAD[sent : sent + 1] or b"x"
            sent += 1
            for connection in [one for one in opened if _is_closed(one, byte)]:
                self.longest = max(self.longest, time.monotonic() - opened.pop(connection))
                connection.close()
            self.open = len(opened)
        for connection in opened:
            connection.close()


def _is_closed(connection: socket.socket, byte: bytes) -> bool:
    """Send a byte; whether the other side has closed the connection."""
    try:
        connection.send(byte)
        return connection.recv(1 << 12) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _ask_honestly(house: House, count: int) -> list[Exchange]:
    """Ask about words and pictures, four requests at a time."""
    makers: tuple[Callable[..., dict[str, Any]], ...] = (words, about_picture)
    bodies = [makers[number % 2](number, stream=number % 4 < 2, max_tokens=16) for number in new_numbers(count)]
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(house.crowd.answer, bodies))


def _figures_of_honest(quiet: Sequence[Exchange], loud: Sequence[Exchange]) -> Iterator[Figure]:
    before, during = (percentile([one.ended - one.asked for one in some], 0.99) for some in (quiet, loud))
    yield told("stalled/honest", len(loud))
    yield none_but("stalled/honest-not-answered", [*quiet, *loud], WHOLE)
    yield told("stalled/p99-quiet", before, "s")
    yield at_most("stalled/p99", during, 2 + 3 * before, "s")


def _stalled(house: House) -> float:
    return house.probe.metrics()["ain_connections_stalled_total"]


def _allow_descriptors() -> None:
    """Each of the thousands of connections takes one, here too."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
