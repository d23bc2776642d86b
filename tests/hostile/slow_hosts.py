"""How long texts take while a hundred hosts send pictures at a byte a second.

    python -m tests.hostile.slow_hosts [--hosts 100] [--rounds 10] [--requests 200]

In each round texts are asked for alone, and then with the slow hosts being fetched from; the two take turns so that
what else the machine does falls on both. Prints p50, p90 and p99 of both, and how much work the slow hosts are.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import httpx
import psutil

from tests.e2e.asking import PATH
from tests.hostile import bodies, names
from tests.hostile.case import said, shown
from tests.hostile.house import House, open_house
from tests.hostile.internet import WebHost, open_internet

FETCH_TIMEOUT_S: Final = 60.0
"""Longer than a round of texts takes, so that all hosts stay slow throughout."""
TOKENS: Final = 8
IN_TIME_S: Final = 30.0
IDLE_S: Final = 10.0


@contextlib.contextmanager
def slow_hosts(house: House, hosts: int) -> Iterator[None]:
    """So many requests about pictures that come a byte a second, all of them being fetched."""
    before = len(house.internet.plain.visits)
    with contextlib.ExitStack() as stack:
        for url in bodies.slow_host_urls(hosts):
            connection = stack.enter_context(socket.create_connection(house.place, timeout=IN_TIME_S))
            body = json.dumps(shown(url)).encode()
            head = f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        _await_visits(house.internet.plain, before + hosts)
        house.server.await_that(lambda: house.server.metric("ain_requests_inside") >= hosts, "full", IN_TIME_S)
        yield
    house.server.await_that(lambda: not house.server.metric("ain_requests_inside"), "empty", IN_TIME_S)


def _await_visits(host: WebHost, visits: int) -> None:
    end = time.monotonic() + IN_TIME_S
    while len(host.visits) < visits:
        if time.monotonic() > end:
            raise TimeoutError(f"{len(host.visits)} of {visits} fetches began")
        time.sleep(0.05)


def measure(address: str, requests: int) -> list[float]:
    """Milliseconds that each of so many texts took, one after the other. Runs in a process of its own."""
    taken = []
    with httpx.Client(base_url=address, timeout=IN_TIME_S, trust_env=False) as client:
        for _ in range(requests):
            body = said(f"Hello {random.randrange(10**9)}", max_tokens=TOKENS)
            started = time.perf_counter()
            client.post(PATH, json=body).raise_for_status()
            taken.append((time.perf_counter() - started) * 1000)
    return taken


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.hostile.slow_hosts", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--requests", type=int, default=200, help="texts in each half of a round")
    wanted = parser.parse_args(argv)
    # One caller may have half of all fetches: here so many that none of the hosts has to wait for another.
    room = ("--fetch-concurrency", "--max-running", "--max-requests")
    flags = (
        "--fetch-timeout-s",
        f"{FETCH_TIMEOUT_S:g}",
        *(word for name in room for word in (name, str(2 * wanted.hosts))),
    )
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    with (
        tempfile.TemporaryDirectory(prefix="ain-slow-hosts-") as folder,
        open_internet(Path(folder), names.ZONE, bodies.PAGES) as internet,
        open_house(internet, *flags) as house,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as asker,  # apart from the slow hosts' threads
    ):

        def ask() -> list[float]:
            return asker.submit(measure, house.server.address, wanted.requests).result()

        ask()  # the first are slower
        for number in range(wanted.rounds):
            alone.append(ask())
            with slow_hosts(house, wanted.hosts):
                beside.append(ask())
            print(f"round {number + 1} of {wanted.rounds}", file=sys.stderr)
        with slow_hosts(house, wanted.hosts):
            idle = busy_share(house.server.process.pid, IDLE_S)
    print(
        f"{wanted.rounds} rounds of {wanted.requests} texts of {TOKENS} tokens; milliseconds, the median of the rounds"
    )
    print("        alone   beside slow hosts")
    for name, share in (("p50", 0.50), ("p90", 0.90), ("p99", 0.99)):
        before, during = (statistics.median(percentile(one, share) for one in half) for half in (alone, beside))
        print(f"{name} {before:9.1f} {during:9.1f}  {during / before - 1:+.1%}")
    print(f"{wanted.hosts} slow hosts alone keep the server's process busy for {idle:.2%} of a core")
    return 0


def busy_share(pid: int, seconds: float) -> float:
    """Which share of the time a process has been at work."""
    process = psutil.Process(pid)
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


if __name__ == "__main__":
    sys.exit(main())
