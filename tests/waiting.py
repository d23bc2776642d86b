"""Waiting for what happens beside a test, no longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

GONE_WITHIN_S = 2.0
"""A client that goes away frees its place in the engine within this time."""


def eventually(condition: Callable[[], object], within: float = GONE_WITHIN_S) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return bool(condition())
