"""Who is in the house at this moment, so that what a revoked key has under way can be ended."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from server.errors import ApiError, Draining, Unauthorized

State = MutableMapping[str, Any]
"""What a request carries along; the reason why it was cut is found there."""
REVOKED = "This API key has been revoked."


class Presence:
    """The tasks of all requests under way, by tenant: a key keeps that under any name. Belongs to one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[str, dict[asyncio.Task[Any], State]] = {}

    @contextmanager
    def of(self, tenant: str, state: State) -> Iterator[None]:
        """Count the running task in while the block lasts."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        present = self._tasks.setdefault(tenant, {})
        present[task] = state
        try:
            yield
        finally:
            del present[task]
            if not present and self._tasks.get(tenant) is present:
                del self._tasks[tenant]

    def end(self, tenant: str) -> int:
        """End all that a tenant has under way, with the reason; returns how many."""
        present = dict(self._tasks.get(tenant, {}))
        for task, state in present.items():
            state["cut_for"] = Unauthorized(REVOKED)
            task.cancel()
        return len(present)


def why_cut(state: State) -> ApiError:
    """Why a request was cancelled from outside: by default the time to drain is over."""
    reason = state.get("cut_for")
    return reason if isinstance(reason, ApiError) else Draining()
