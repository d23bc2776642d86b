"""Takes a keys file anew while the server runs: new keys open it, and what a revoked one has under way ends."""

from __future__ import annotations

import asyncio
import logging

import anyio.to_thread

from server.admission.keys import KeyRing, KeysError
from server.admission.presence import Presence
from server.core import Reading

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
"""A key that is revoked opens the server for no longer than this."""


class KeyWatch:
    """Looks at the file's state every few seconds, and at once when it is told to. Belongs to one event loop."""

    def __init__(self, keys: KeyRing, presence: Presence) -> None:
        self._keys = keys
        self._presence = presence
        self._asked = asyncio.Event()
        self._refused = False

    def readings(self) -> list[Reading]:
        """How it is with the keys, for /metrics."""
        return [
            Reading("ain_keys", "API keys that open the server.", len(self._keys)),
            Reading("ain_keys_file_refused", "1 while the keys file is wrong and the keys before hold.", self._refused),
        ]

    def look_now(self) -> None:
        """Read the file even if it seems to be the same."""
        self._asked.set()

    async def run(self) -> None:
        """Watch for ever; without a file there is nothing to watch."""
        if self._keys.file is None:
            return
        known = await anyio.to_thread.run_sync(self._keys.state_of_file)
        while True:
            asked = await self._next_look()
            found = await anyio.to_thread.run_sync(self._keys.state_of_file)
            if asked or found != known:
                known = found
                await self._read()

    async def _next_look(self) -> bool:
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True

    async def _read(self) -> None:
        try:
            gone = await anyio.to_thread.run_sync(self._keys.read_again)
        except KeysError as error:
            self._refused = True
            log.error("the keys file is not taken, the keys before it stay: %s", error)
            return
        self._refused = False
        for warning in self._keys.warnings:
            log.warning("%s", warning)
        ended = sum(self._presence.end(caller.tenant) for caller in gone)
        log.warning("the keys file was read: %d keys; %d revoked, %d requests ended", len(self._keys), len(gone), ended)
