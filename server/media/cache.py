"""Caches that forget what was used least recently, bounded in bytes, and work that several may wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

import cachetools

from server.core import Reading

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class ByteCache(Generic[Key, Value]):
    """At most `max_bytes` of values, as `size_of` counts them; 0 keeps nothing."""

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._entries: cachetools.LRUCache[Key, Value] = cachetools.LRUCache(max_bytes, getsizeof=size_of)
        self._hits = self._misses = 0

    @property
    def bytes(self) -> int:
        """What it holds at this moment."""
        return int(self._entries.currsize)

    def readings(self, name: str) -> list[Reading]:
        """How the cache called `name` is, for /metrics."""
        labels = (("cache", name),)
        return [
            Reading("ain_media_cache_hits", "What was found in a cache.", self._hits, is_counter=True, labels=labels),
            Reading("ain_media_cache_misses", "What was not found.", self._misses, is_counter=True, labels=labels),
            Reading("ain_media_cache_bytes", "What a cache holds.", self.bytes, labels=labels),
        ]

    def get(self, key: Key) -> Value | None:
        """The value, counted as a hit, or None, counted as a miss."""
        value = self._entries.get(key)
        if value is None:
            self._misses += 1
        else:
            self._hits += 1
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value if it is not larger than the whole cache."""
        try:
            self._entries[key] = value
        except ValueError:  # "value too large"
            self._entries.pop(key, None)

    def drop(self, key: Key) -> None:
        """Forget a value."""
        self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget all of them."""
        self._entries.clear()


class SingleFlight(Generic[Key, Value]):
    """Work under way, by key: who asks for the same at the same time waits for the same.

    The work is cancelled when the last of those who wait for it is.
    """

    def __init__(self) -> None:
        self._tasks: dict[Key, tuple[asyncio.Future[Value], list[None]]] = {}

    async def run(self, key: Key, work: Callable[[], Awaitable[Value]]) -> Value:
        """The result of `work`, or of the same work that somebody has begun before. Raises what it raises."""
        if key in self._tasks:
            task, waiting = self._tasks[key]
        else:
            task, waiting = asyncio.ensure_future(work()), []
            self._tasks[key] = task, waiting
            task.add_done_callback(lambda done: self._forget(key, done))
        waiting.append(None)
        try:
            return await asyncio.shield(task)
        finally:
            waiting.pop()
            if not waiting and not task.done():
                self._forget(key, task)  # who comes now must not wait for what is being cancelled
                task.cancel()
            del task  # its error knows this frame: together they would keep all that the request held

    def _forget(self, key: Key, task: asyncio.Future[Value]) -> None:
        if key in self._tasks and self._tasks[key][0] is task:
            del self._tasks[key]
        if task.done() and not task.cancelled():
            task.exception()  # seen, even where all who waited have left
