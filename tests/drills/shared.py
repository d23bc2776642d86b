"""What short drills share, since a start takes longer than most of them; in the whole form each has its own."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

Thing = TypeVar("Thing")

_all: list[Shared[Any]] = []


class Shared(Generic[Thing]):
    """Opened by the first who wants it, and again where it has ended since."""

    def __init__(self, opening: Callable[[], AbstractContextManager[Thing]], lives: Callable[[Thing], bool]) -> None:
        self._opening = opening
        self._lives = lives
        self._stack = contextlib.ExitStack()
        self._things: list[Thing] = []
        _all.append(self)

    def get(self) -> Thing:
        """The one there is."""
        if self._things and not self._lives(self._things[0]):
            self.close()
        if not self._things:
            self._things.append(self._stack.enter_context(self._opening()))
        return self._things[0]

    def close(self) -> None:
        """End it, if there is one."""
        self._stack.close()
        self._things.clear()


def close_shared() -> None:
    """End all that is shared."""
    for one in _all:
        one.close()


atexit.register(close_shared)  # before the interpreter's end takes the folders from under it
