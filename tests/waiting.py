"""Waiting for what happens beside a test, no longer than it takes; and how much longer it takes on a busy machine."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

Opened = TypeVar("Opened")

PATIENCE_S = 30.0
"""Nothing that a test waits for takes so long, on however busy a machine; how soon it comes, drills measure."""
WORK_S = 0.06
"""What `slowness` does takes so long on a quiet core of 2020."""


def eventually(condition: Callable[[], object], within: float = PATIENCE_S) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())


def slowness() -> float:
    """How many times as long as on a quiet machine everything takes at this moment; at least 1."""
    began = time.monotonic()
    for _ in range(4):
        hashlib.sha512(bytes(1 << 23)).digest()
    return max(1.0, (time.monotonic() - began) / WORK_S)


@contextmanager
def tried_again(opening: Callable[[], AbstractContextManager[Opened]]) -> Iterator[Opened]:
    """What is opened, if need be by a second try: hundreds of tests hang on it."""
    with ExitStack() as stack:
        try:
            opened = stack.enter_context(opening())
        except Exception as error:
            print(f"cannot be opened, and is tried once more: {error}", file=sys.stderr)
            opened = stack.enter_context(opening())
        yield opened
