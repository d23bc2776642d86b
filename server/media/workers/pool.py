"""A fixed number of decode workers, each a process; one that hangs or dies is replaced and takes nothing with it."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess

import anyio.to_thread
import psutil

from server.core import Reading
from server.media.workers.channel import READY, Channel, ChannelClosed

log = logging.getLogger(__name__)

DECODERS = "server.media.workers.work"
"""What the fork server shall have imported, so that a worker is there in milliseconds."""
RETRY_AFTER_S = (0.1, 0.5, 2.0, 10.0)
"""Waits between tries to start a worker; the last one repeats."""
UP_WITHIN_S = 60.0
"""For a worker to say that it is ready, from when the fork server has forked it."""
CLOCK_FACTOR = 3.0
"""How much longer than its CPU time a job may take by the clock: a crowded machine is not the fault of the file."""
LEAST_WAIT_S = 0.05
"""Between two looks at what a worker has used."""
GONE_WITHIN_S = 5.0
"""For the kernel to end a worker that was killed."""
_starting = threading.Lock()
"""multiprocessing's fork server is spoken to by one thread at a time."""


class WorkerDied(Exception):
    """The worker ended in the middle of a job."""


class WorkerOverran(Exception):
    """The job took more time than it may, and its worker was ended."""


@dataclass(slots=True)
class Answer:
    """What a worker said, and the descriptors that came along; close it."""

    message: bytes
    attached: list[int]

    def close(self) -> None:
        """Close the descriptors."""
        while self.attached:
            os.close(self.attached.pop())


@dataclass(frozen=True, slots=True)
class _Due:
    """When a job has taken too long."""

    cpu: float
    """Seconds of CPU time in the worker's life."""
    clock: float
    """Seconds of the event loop's clock."""


@dataclass(slots=True, eq=False)
class _Worker:
    """A worker that is up, seen from the server. `answer` is pending while it is at work."""

    process: ForkServerProcess
    channel: Channel
    usage: psutil.Process
    answer: asyncio.Future[Answer] | None = None

    def cpu_seconds(self) -> float:
        """CPU time that it has used in its life; 0 where it is no more."""
        try:
            spent = self.usage.cpu_times()
        except psutil.NoSuchProcess:
            return 0.0
        return float(spent.user + spent.system)


class WorkerPool:
    """Runs jobs: tenants take turns, and a tenant's own jobs are done in their order.

    Belongs to one event loop; start it, and close it with `aclose`. A worker runs `main(channel, *arguments)`: it says
    READY, and answers each message with one. `seconds` is the CPU time that a job may take; by the clock it may take
    CLOCK_FACTOR times as long.
    """

    def __init__(self, main: Callable[..., None], *arguments: object, size: int, seconds: float) -> None:
        self._main = main
        self._arguments = arguments
        self._size = size
        self.seconds = seconds
        self.unboxed = ""
        """What of a worker's box this machine does not give, in words."""
        self._idle: list[_Worker] = []
        self._queues: OrderedDict[str, deque[asyncio.Future[_Worker]]] = OrderedDict()
        """Who waits for a worker, by tenant; the tenant whose turn it is comes first."""
        self._workers: set[_Worker] = set()
        self._hiring: set[asyncio.Task[None]] = set()
        self._burying: set[asyncio.Task[None]] = set()
        self._jobs = self._died = self._overran = self._waiting = self._working = 0

    @property
    def pids(self) -> list[int]:
        """The processes that are up."""
        return [one.process.pid for one in self._workers if one.process.pid is not None]

    def readings(self) -> list[Reading]:
        """How the workers are, for /metrics."""
        lost = "Decode workers that died, or were ended for taking too long."
        return [
            Reading("ain_media_jobs", "Jobs given to decode workers.", self._jobs, is_counter=True),
            Reading("ain_media_jobs_waiting", "Jobs that wait for a decode worker.", self._waiting),
            Reading("ain_media_workers", "Decode workers that there are to be.", self._size),
            Reading(
                "ain_media_workers_unboxed", "1 where a worker keeps more rights than it needs.", bool(self.unboxed)
            ),
            Reading("ain_media_workers_busy", "Decode workers at work.", self._working),
            Reading("ain_media_workers_lost", lost, self._died, is_counter=True, labels=(("reason", "died"),)),
            Reading("ain_media_workers_lost", lost, self._overran, is_counter=True, labels=(("reason", "overran"),)),
        ]

    async def start(self) -> None:
        """Return once all workers are up."""
        await asyncio.gather(*(self._hire() for _ in range(self._size)))

    async def run(self, message: bytes, attached: Sequence[int], tenant: str = "") -> Answer:
        """Have a job done. A job whose caller is cancelled while it waits is never begun.

        Raises WorkerDied and WorkerOverran.
        """
        answer = await self._begin(message, attached, tenant)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(_discard)  # the worker finishes its job, which is short by all limits
            raise

    async def aclose(self) -> None:
        """End all workers, whatever they do, and return when they have gone."""
        for task in self._hiring:
            task.cancel()
        for one in list(self._workers):
            self._lose(one, WorkerDied())
        await asyncio.gather(*self._hiring, return_exceptions=True)
        await asyncio.gather(*self._burying, return_exceptions=True)

    async def _begin(self, message: bytes, attached: Sequence[int], tenant: str) -> asyncio.Future[Answer]:
        """Give a job to the next worker that is free and alive."""
        while True:
            self._waiting += 1
            try:
                one = await self._next_worker(tenant)
            finally:
                self._waiting -= 1
            if one not in self._workers:  # it died on the way here
                continue
            try:
                one.channel.send(message, attached)
            except ChannelClosed:  # it died since its last job, and this one has not begun
                self._replace(one, WorkerDied())
                continue
            return self._expect(one)

    async def _next_worker(self, tenant: str) -> _Worker:
        if self._idle:  # then nobody waits
            return self._idle.pop()
        turn: asyncio.Future[_Worker] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant, deque()).append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._free(turn.result())
            raise

    def _free(self, one: _Worker) -> None:
        """Give a worker to whose turn it is, or let it wait."""
        while self._queues:
            tenant, queue = self._queues.popitem(last=False)
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    if queue:
                        self._queues[tenant] = queue  # at the end: the others come first
                    turn.set_result(one)
                    return
        self._idle.append(one)

    def _expect(self, one: _Worker) -> asyncio.Future[Answer]:
        loop = asyncio.get_running_loop()
        one.answer = answer = loop.create_future()
        due = _Due(one.cpu_seconds() + self.seconds, loop.time() + CLOCK_FACTOR * self.seconds)
        self._look_again(one, answer, due, self.seconds)
        self._jobs += 1
        self._working += 1
        return answer

    def _heard(self, one: _Worker) -> None:
        """A worker's channel can be read."""
        try:
            answer = Answer(*one.channel.receive())
        except BlockingIOError:
            return
        except ChannelClosed:
            log.warning("a decode worker died (exit status %s)", one.process.exitcode)
            self._replace(one, WorkerDied())
            return
        if one.answer is None or one.answer.done():
            answer.close()
            return
        pending, one.answer = one.answer, None
        self._working -= 1
        pending.set_result(answer)
        self._free(one)

    def _look_again(self, one: _Worker, answer: asyncio.Future[Answer], due: _Due, after_s: float) -> None:
        timer = asyncio.get_running_loop().call_later(after_s, self._look, one, answer, due)
        answer.add_done_callback(lambda _: timer.cancel())

    def _look(self, one: _Worker, answer: asyncio.Future[Answer], due: _Due) -> None:
        """End a worker that has used up its CPU time or its time by the clock; else look again when it may have."""
        if answer.done():
            return
        left = min(due.cpu - one.cpu_seconds(), due.clock - asyncio.get_running_loop().time())
        if left > 0:
            self._look_again(one, answer, due, max(left, LEAST_WAIT_S))
        else:
            self._overrun(one)

    def _overrun(self, one: _Worker) -> None:
        log.warning("a decode worker took more than %g s for a job and was ended", self.seconds)
        self._replace(one, WorkerOverran())

    def _replace(self, one: _Worker, reason: WorkerDied | WorkerOverran) -> None:
        self._lose(one, reason)
        _keep(self._hiring, asyncio.ensure_future(self._hire()))

    def _lose(self, one: _Worker, reason: WorkerDied | WorkerOverran) -> None:
        self._workers.discard(one)
        asyncio.get_running_loop().remove_reader(one.channel.fileno())
        one.channel.close()
        self._end(one.process)
        if isinstance(reason, WorkerDied):
            self._died += 1
        else:
            self._overran += 1
        pending, one.answer = one.answer, None
        if pending is not None:
            self._working -= 1
            if not pending.done():
                pending.set_exception(reason)
        if one in self._idle:
            self._idle.remove(one)

    async def _hire(self) -> None:
        """Start a worker, however many tries it takes."""
        tries = 0
        while True:
            try:
                one = await self._start_one()
            except Exception:
                wait = RETRY_AFTER_S[min(tries, len(RETRY_AFTER_S) - 1)]
                log.exception("a decode worker did not start; the next try is in %g s", wait)
                tries += 1
                await asyncio.sleep(wait)
                continue
            self._workers.add(one)
            asyncio.get_running_loop().add_reader(one.channel.fileno(), self._heard, one)
            self._free(one)
            return

    async def _start_one(self) -> _Worker:
        (ours, theirs), birth = Channel.pair(), _Birth()
        try:
            try:
                arguments = (theirs, *self._arguments)
                process = await anyio.to_thread.run_sync(birth.fork, self._main, arguments, abandon_on_cancel=True)
            finally:
                theirs.close()  # else its end would not be seen when the worker has gone
            self.unboxed = await anyio.to_thread.run_sync(_await_ready, ours, abandon_on_cancel=True)
            usage = psutil.Process(process.pid)
        except BaseException:
            ours.close()
            if (unwanted := birth.renounce()) is not None:
                self._end(unwanted)
            raise
        ours.socket.setblocking(False)
        return _Worker(process, ours, usage)

    def _end(self, process: ForkServerProcess) -> None:
        process.kill()
        _keep(self._burying, asyncio.ensure_future(anyio.to_thread.run_sync(_bury, process)))


class _Birth:
    """A process that a thread starts, while who wants it may give it up: then the thread ends it."""

    def __init__(self) -> None:
        self._deciding = threading.Lock()
        self._process: ForkServerProcess | None = None
        self._unwanted = False

    def fork(self, main: Callable[..., None], arguments: tuple[object, ...]) -> ForkServerProcess:
        """Start it; takes as long as the fork server needs to import."""
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=main, args=arguments, name="decode-worker", daemon=True)
        with _starting:
            process.start()
        with self._deciding:
            self._process = process
            if not self._unwanted:
                return process
        process.kill()
        _bury(process)
        return process

    def renounce(self) -> ForkServerProcess | None:
        """The process, if it has been started; else it will be ended as soon as it has."""
        with self._deciding:
            self._unwanted = True
            return self._process


def _bury(process: ForkServerProcess) -> None:
    """Give back what is kept of a process that was killed: else its pipes stay open until another one starts."""
    if wait([process.sentinel], GONE_WITHIN_S):
        with _starting:
            process.join()
            process.close()


def _keep(tasks: set[asyncio.Task[None]], task: asyncio.Task[None]) -> None:
    """Hold a task until it has ended, for the loop does not."""
    tasks.add(task)
    task.add_done_callback(tasks.discard)


def _await_ready(channel: Channel) -> str:
    """What a worker says of its box once it is up: what of that could not be had."""
    channel.socket.settimeout(UP_WITHIN_S)
    message, _ = channel.receive()
    if not message.startswith(READY):
        raise ChannelClosed
    return message.removeprefix(READY).decode(errors="replace")


def _discard(answer: asyncio.Future[Answer]) -> None:
    if not answer.cancelled() and answer.exception() is None:
        answer.result().close()
