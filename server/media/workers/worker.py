"""A decode worker: a process of its own, held to little memory and time, that does one job after the other.

It is forked from multiprocessing's fork server, which has imported what decoding needs. It can be killed at any moment
without harm: it holds nothing but the job that it works on.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import math
import os
import resource
import signal
from dataclasses import dataclass

from server.errors import ApiError, InternalError, invalid_media
from server.media.limits import WorkLimits
from server.media.workers import jobs
from server.media.workers.box import shut_in
from server.media.workers.channel import READY, Channel, ChannelClosed, Growing, view_of

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""mallopt(3)."""
KEPT_BYTES = 256 << 20
"""Free memory that a worker keeps for the next picture: page faults cost as much as the decoding of a page."""
IDLE_S = 1.0
"""After that long without a job it keeps none."""
LARGEST_MMAP_THRESHOLD = 32 << 20
"""DEFAULT_MMAP_THRESHOLD_MAX of glibc on 64-bit machines."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a worker may use for a job."""

    memory_bytes: int = 2 << 30
    """On top of what it holds when it starts."""
    seconds: float = 20.0
    """Of CPU time; the server itself ends a job that takes as long by the clock."""
    boxed: bool = True
    """Whether it gives up all that decoding does not need; not where it is no process of its own, as in tests."""


def main(channel: Channel, limits: WorkLimits, bounds: Bounds) -> None:
    """Do jobs until the server closes the channel. The first message says what of its box could not be had."""
    _settle(bounds)
    missing = _shut_in(limits, bounds) if bounds.boxed else []
    with contextlib.suppress(ChannelClosed):
        channel.send(READY + "; ".join(missing).encode())
        while True:
            _do_one(channel, limits, bounds)


def _shut_in(limits: WorkLimits, bounds: Bounds) -> list[str]:
    from server.media.workers import work  # heavy, and preloaded where this runs

    work.rehearse(limits)
    return shut_in(bounds.memory_bytes)


def _do_one(channel: Channel, limits: WorkLimits, bounds: Bounds) -> None:
    message, files = _next_job(channel)
    _limit_cpu(bounds.seconds)
    memory = Growing()
    try:
        channel.send(*_answer(jobs.unpack_job(message), files, limits, memory))
    finally:
        memory.close()
        for file in files:
            os.close(file)
    gc.collect(0)


def _next_job(channel: Channel) -> tuple[bytes, list[int]]:
    channel.socket.settimeout(IDLE_S)
    try:
        return channel.receive()
    except TimeoutError:
        Growing.forget()
        ctypes.CDLL(None).malloc_trim(0)
    channel.socket.settimeout(None)
    return channel.receive()


def _answer(job: jobs.Job, files: list[int], limits: WorkLimits, memory: Growing) -> tuple[bytes, list[int]]:
    """A message and what is attached to it."""
    from server.media.workers import work  # heavy, and preloaded where this runs

    try:
        return jobs.pack_cuts(work.do(job, view_of(files[0]), limits, memory)), [memory.seal()]
    except ApiError as error:
        return jobs.pack_error(error), []
    except Exception as error:
        return jobs.pack_error(_as_api_error(error, job)), []


def _as_api_error(error: Exception, job: jobs.Job) -> ApiError:
    if isinstance(error, MemoryError) or "allocate memory" in str(error):  # torch raises a RuntimeError
        return invalid_media(
            jobs.KIND_OF[type(job)],
            "Decoding this takes more memory than the server allows.",
            code="image_too_large",
            param=job.param,
        )
    log.error("a decode worker failed", exc_info=error)
    return InternalError("The server failed to decode this.", param=job.param)


def _settle(bounds: Bounds) -> None:
    """Take on the limits, for good."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which closes the channel
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    most = _address_space() + bounds.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    gc.freeze()


def _limit_cpu(seconds: float) -> None:
    spent = resource.getrusage(resource.RUSAGE_SELF)
    soft = math.ceil(spent.ru_utime + spent.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()
