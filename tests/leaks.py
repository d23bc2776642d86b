"""What a test must give back: descriptors (sockets among them), threads, processes, and the tasks of its event loop.

The fixtures of tests/conftest.py compare before and after: for each test, for each module, and for the whole run, each
with what its own fixtures hold. Nothing is collected first: a socket that only the garbage collector would close is
found by whichever test happens to run then, and that one fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any, Final

import psutil
import tqdm
import uvloop

GIVEN_BACK_WITHIN_S: Final = 10.0
"""Threads need a moment to end, and so does the other end of a connection."""
LOOK_EVERY_S: Final = 0.005
OF_A_LOOP: Final = ("AnyIO worker thread", "asyncio_")
"""Names of threads that belong to an event loop and end with it; a loop that stays has descriptors that are seen."""


@dataclass(frozen=True, slots=True)
class Held:
    """What this process holds at a moment, by identity; `what` says what it is, for people."""

    things: dict[object, str]

    def more_than(self, before: Held) -> list[str]:
        """What has come since, but for as much of its kind as has gone: a server may replace what it holds."""
        kinds = Counter(before.things.values()) - Counter(
            what for thing, what in self.things.items() if thing in before.things
        )
        more = []
        for thing, what in self.things.items():
            if thing in before.things:
                continue
            if kinds[what] > 0:
                kinds[what] -= 1
            else:
                more.append(f"{what} ({thing})")
        return more


def keep_what_stays() -> None:
    """Have libraries take at once what they keep for the whole process, or not at all."""
    uvloop.new_event_loop().close()  # libuv's pipe for signals
    tqdm.tqdm.monitor_interval = 0  # the thread that looks after progress bars


def held() -> Held:
    """Everything that somebody must give back: all but what multiprocessing and installed packages keep for good."""
    return Held({**_descriptors(), **_threads(), **_processes()})


def _descriptors() -> dict[object, str]:
    ours = {forkserver._forkserver._forkserver_alive_fd, resource_tracker._resource_tracker._fd}  # type: ignore[attr-defined]
    found: dict[object, str] = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that has listed them
            target = os.readlink(f"/proc/self/fd/{name}")
            if int(name) not in ours and not target.startswith(f"{sys.prefix}/"):  # such as a font of matplotlib's
                found[f"descriptor {name}: {target}"] = target.partition(":[")[0]
    return found


def _threads() -> dict[object, str]:
    running = (thread for thread in threading.enumerate() if not thread.name.startswith(OF_A_LOOP))
    return {f"thread {thread.ident}: {thread.name}": f"thread {thread.name}" for thread in running}


def _processes() -> dict[object, str]:
    ours = {forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid}  # type: ignore[attr-defined]
    return {f"process {pid}: {_command(pid)}": "process" for pid in _children() if pid not in ours}


def _children() -> set[int]:
    """By the kernel's own lists, which cost nothing; where it keeps none, by a look at all processes."""
    if not Path("/proc/thread-self/children").exists():
        return {child.pid for child in psutil.Process().children()}
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            found.update(map(int, (task / "children").read_text().split()))
    return found


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    return "?"


_of_the_others: dict[object, str] = {}


@contextlib.contextmanager
def for_the_others() -> Iterator[None]:
    """What the block takes stays for tests to come: only the run as a whole has to give it back."""
    before = held()
    yield
    _of_the_others.update({thing: what for thing, what in held().things.items() if thing not in before.things})


@contextlib.contextmanager
def all_given_back(whose: str, *, at_last: bool = False) -> Iterator[None]:
    """Fail if the block leaves anything behind; `at_last`, nothing is for others any more."""
    before, others = held(), set(_of_the_others)
    yield
    end = time.monotonic() + GIVEN_BACK_WITHIN_S
    since = {thing: what for thing, what in _of_the_others.items() if thing not in others}
    known = before if at_last else Held({**since, **before.things})
    while (left := held().more_than(known)) and time.monotonic() < end:
        time.sleep(LOOK_EVERY_S)
    assert not left, f"{whose} has left behind: {'; '.join(left)}"


AsyncTest = Callable[..., Coroutine[Any, Any, None]]


def with_tasks_given_back(test: AsyncTest, whose: str) -> AsyncTest:
    """The same test, which fails if tasks that it started outlive it; the end of its loop would cancel them unseen."""

    @functools.wraps(test)
    async def watched(*args: Any, **kwargs: Any) -> None:
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        end = time.monotonic() + GIVEN_BACK_WITHIN_S
        while (left := asyncio.all_tasks() - before) and time.monotonic() < end:  # noqa: ASYNC110  whoever they are
            await asyncio.sleep(LOOK_EVERY_S)
        assert not left, f"{whose} has left tasks behind: {left}"

    return watched
