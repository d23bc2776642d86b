"""Waiting for what happens beside a test, no longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_S = 30.0
"""Nothing that a test waits for takes so long, on however busy a machine; how soon it comes, drills measure."""


def eventually(condition: Callable[[], object], within: float = PATIENCE_S) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())
