"""The kinds of work that servers are given, and what is measured meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from clients.bench import load
from clients.bench.bodies import PICTURES, picture_request, text_request
from clients.bench.cpu import cpu_seconds
from clients.bench.load import Answer
from clients.bench.model import CAPPED_PIXELS, FULL_PIXELS
from clients.bench.peers import Running

SETTLE_S = 0.2
"""After the last reply, before the CPU is read: logs and metrics of it are part of its cost."""
QUICK = 4
"""A quick bench asks so many times fewer questions."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A list of requests and how they are sent: `concurrency` at a time, or `per_second` however many are under way."""

    name: str
    kind: str
    """`text`, or a kind of picture."""
    count: int
    concurrency: int = 1
    per_second: float = 0.0
    max_tokens: int = 1
    stream: bool = False
    same: bool = False
    """One picture again and again, for servers with caches."""
    max_pixels: int = CAPPED_PIXELS
    """The limit of the model for which it is meant."""
    warm_up: int = 4
    """Requests before the clock starts."""

    def quicker(self) -> Workload:
        """The same with fewer requests."""
        return replace(self, count=max(self.count // QUICK, self.concurrency, 4))


TEXT = Workload("text", "text", 400, concurrency=8, max_tokens=16)
STREAM = Workload("stream", "text", 64, concurrency=32, max_tokens=128, stream=True)
TTFT = Workload("ttft", "text", 200, per_second=20, max_tokens=16, stream=True)
THUMBNAIL = Workload("224px", "224px", 200, concurrency=4)
FULL_HD = Workload("1080p", "1080p", 48, concurrency=4)
PAGE = Workload("a4", "a4", 24, concurrency=4)
REPEATED = Workload("repeated", "a4", 32, concurrency=4, same=True)
PAGES = Workload("pages", "a4", 48, concurrency=16, warm_up=8)
FULL_HD_WHOLE = Workload("1080p-full", "1080p", 24, concurrency=2, max_pixels=FULL_PIXELS)
PAGE_WHOLE = Workload("a4-full", "a4", 12, concurrency=2, max_pixels=FULL_PIXELS)

ALL = (TEXT, STREAM, TTFT, THUMBNAIL, FULL_HD, PAGE, REPEATED, PAGES, FULL_HD_WHOLE, PAGE_WHOLE)


@dataclass(frozen=True, slots=True)
class Sample:
    """One workload on one server, once."""

    requests: int
    seconds: float
    cpu_s: float
    """CPU seconds of the front end."""
    client_cpu_s: float
    first_s: tuple[float, ...]
    """Seconds to the first text of each reply that was streamed."""
    answers: tuple[Answer, ...]

    @property
    def tokens(self) -> int:
        """Tokens of all answers."""
        return sum(answer.completion_tokens for answer in self.answers)

    @property
    def refused(self) -> Answer | None:
        """The first answer that is an error."""
        return next((answer for answer in self.answers if answer.status != 200), None)


class Requests:
    """The requests of workloads, made once and used for every server and round, each of which starts afresh.

    No two of one server's requests are the same, but for workloads that want it so.
    """

    def __init__(self, workloads: Sequence[Workload]) -> None:
        self._numbers: dict[str, range] = {}
        self._made: dict[tuple[str, int, int, bool], bytes] = {}
        used: Counter[tuple[str, int]] = Counter()
        for workload in workloads:
            key = workload.kind, workload.max_pixels
            number = 1 if workload.same else workload.warm_up + workload.count
            self._numbers[workload.name] = range(used[key], used[key] + number)
            used[key] += number

    def of(self, workload: Workload) -> list[bytes]:
        """The requests of a workload, those of its warm-up first."""
        numbers = self._numbers[workload.name]
        if workload.same:
            return [self._request(workload, numbers[0])] * (workload.warm_up + workload.count)
        return [self._request(workload, number) for number in numbers]

    def _request(self, workload: Workload, number: int) -> bytes:
        key = workload.kind, number, workload.max_tokens, workload.stream
        if key not in self._made:
            self._made[key] = _make(workload, number)
        return self._made[key]


def _make(workload: Workload, number: int) -> bytes:
    if workload.kind in PICTURES:
        return picture_request(workload.kind, number, workload.max_tokens, stream=workload.stream)
    return text_request(number, workload.max_tokens, stream=workload.stream)


def measure(workload: Workload, requests: Sequence[bytes], server: Running) -> Sample:
    """Run a workload on a server. A server that refuses its requests is not measured: see `Sample.refused`.

    Raises:
        ConnectionError, TimeoutError: the server broke off.
    """
    warm_up, timed = requests[: workload.warm_up], requests[workload.warm_up :]
    warm = load.at_once(server.address, warm_up, max(1, workload.concurrency))
    if any(answer.status != 200 for answer in warm.answers):
        return Sample(len(warm_up), warm.seconds, 0.0, warm.client_cpu_s, (), warm.answers)
    time.sleep(SETTLE_S)
    before = cpu_seconds(server.process.pid)
    if workload.per_second:
        done = load.paced(server.address, timed, workload.per_second)
    else:
        done = load.at_once(server.address, timed, workload.concurrency)
    time.sleep(SETTLE_S)
    cpu = cpu_seconds(server.process.pid) - before
    first = tuple(reply.first for reply in done.replies) if workload.stream else ()
    return Sample(len(timed), done.seconds, cpu, done.client_cpu_s, first, done.answers)
