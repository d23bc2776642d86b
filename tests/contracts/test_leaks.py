"""What a test leaves behind makes it fail, and is named."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests import leaks
from tests.leaks import all_given_back, with_tasks_given_back


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaks, "GIVEN_BACK_WITHIN_S", 0.05)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def open_socket(stack: ExitStack) -> None:
    stack.enter_context(socket.socket())


def open_pipe(stack: ExitStack) -> None:
    for descriptor in os.pipe():
        stack.callback(os.close, descriptor)


def start_thread(stack: ExitStack) -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="idler")
    thread.start()
    stack.callback(thread.join)
    stack.callback(over.set)


def start_process(stack: ExitStack) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stack.callback(process.communicate, b"\n")


@pytest.mark.parametrize(
    ("leave", "told"),
    [(open_socket, "socket"), (open_pipe, "pipe"), (start_thread, "thread idler"), (start_process, "process")],
)
def test_what_is_left_behind_is_named(stack: ExitStack, leave: Callable[[ExitStack], None], told: str) -> None:
    with (
        pytest.raises(AssertionError, match=rf"a careless test has left behind: .*{told}"),
        all_given_back("a careless test"),
    ):
        leave(stack)


def test_what_is_given_back_is_no_leak() -> None:
    with all_given_back("a careful test"), ExitStack() as stack:
        for take in (open_socket, open_pipe, start_thread, start_process):
            take(stack)


def test_a_socket_that_only_the_garbage_collector_would_close_is_a_leak() -> None:
    """It was found by whichever test happened to collect, and that one failed."""
    cycle: list[object] = []
    with (
        pytest.raises(AssertionError, match="a test with a cycle has left behind: socket"),
        all_given_back("a test with a cycle"),
    ):
        cycle += [socket.socket(), cycle]
    kept = cycle[0]
    assert isinstance(kept, socket.socket)
    kept.close()


def test_what_takes_the_place_of_another_is_no_leak(stack: ExitStack) -> None:
    """A server may replace a worker that a test has killed."""
    first = socket.socket()
    with all_given_back("a test of replacement"):
        first.close()
        open_socket(stack)


async def test_a_task_that_outlives_its_test_is_named() -> None:
    left: list[asyncio.Task[None]] = []

    async def careless() -> None:
        left.append(asyncio.create_task(asyncio.sleep(60), name="dreamer"))

    with pytest.raises(AssertionError, match=r"a careless test has left tasks behind: .*dreamer"):
        await with_tasks_given_back(careless, "a careless test")()
    left[0].cancel()
