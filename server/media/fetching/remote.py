"""Fetched files, kept as long as their servers allow, and fetched fairly between tenants."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from server.errors import MediaKind
from server.media.cache import ByteCache
from server.media.fetching.fetch import Fetcher, Order, Reply
from server.media.fetching.freshness import Freshness
from server.media.fetching.slots import FairSlots
from server.media.sources import Remote

OVERHEAD = 1024
"""Bytes that an entry counts beside its body."""
Key = tuple[str, MediaKind, str]


@dataclass(frozen=True, slots=True)
class _Kept:
    body: bytes
    freshness: Freshness

    @property
    def size(self) -> int:
        return len(self.body) + OVERHEAD


class RemoteFiles:
    """Gets remote files. Belongs to one event loop; close it with `aclose`.

    `cache_bytes` bounds what is kept, each tenant's apart: nobody learns by timing what another has fetched.
    `slots`: fetches at once, shared out so that a tenant with slow hosts leaves room for the others.
    """

    def __init__(self, fetcher: Fetcher, *, cache_bytes: int, slots: int) -> None:
        self._fetcher = fetcher
        self.cache: ByteCache[Key, _Kept] = ByteCache(cache_bytes, lambda kept: kept.size)
        self._slots = FairSlots(slots)

    async def get(self, remote: Remote, tenant: str, max_bytes: int, spend: Callable[[int], None]) -> bytes:
        """The bytes of a remote file; `spend` is told of them as they arrive. Raises what `Fetcher.get` does."""
        key = (tenant, remote.kind, remote.url)
        kept = self.cache.get(key)
        if kept is not None and len(kept.body) > max_bytes:
            kept = None
        if kept is not None and kept.freshness.until > time.monotonic():
            spend(len(kept.body))
            return kept.body
        validators = tuple(kept.freshness.validators()) if kept is not None else ()
        async with self._slots.slot(tenant):
            reply = await self._fetcher.get(Order(remote, max_bytes, spend, validators))
        return self._keep(key, kept, reply, spend)

    def _keep(self, key: Key, kept: _Kept | None, reply: Reply, spend: Callable[[int], None]) -> bytes:
        if reply.body is not None:
            kept = _Kept(reply.body, reply.freshness)
        elif kept is not None:
            spend(len(kept.body))
            kept = replace(kept, freshness=_renewed(kept.freshness, reply.freshness))
        else:
            raise AssertionError("a reply without a body to a question without validators")
        if kept.freshness.worth_keeping:
            self.cache.put(key, kept)
        else:
            self.cache.drop(key)
        return kept.body

    async def aclose(self) -> None:
        """Close all connections."""
        await self._fetcher.aclose()


def _renewed(old: Freshness, new: Freshness) -> Freshness:
    """What holds after a 304, which need not repeat the validators."""
    return replace(new, etag=new.etag or old.etag, last_modified=new.last_modified or old.last_modified)
