"""All connections of a server: how many there may be, and which give way when there are too many."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import Protocol

from server.errors import TooManyConnections

MAX_HEADS_BYTES = 64 << 20
"""Of all heads that are not complete. A thousand clients can each send the longest one allowed, and no more."""
REFUSED_AT_ONCE = 256
"""Connections that are kept for a moment only to be told that there is no room."""


class Engaged(Enum):
    """How much a connection has a claim to stay."""

    NOT = "not"
    """It has nothing to do, or nothing more: before a request, between two, or at its end."""
    ASKING = "asking"
    """The head of its request is on its way: nothing is known about it."""
    BUSY = "busy"
    """A request of it is being read or answered."""


class Connection(Protocol):
    """What is known of one here."""

    def give_way(self) -> None:
        """End at once, without a word."""


class Connections:
    """Counts them. Belongs to one event loop, as the connections do."""

    def __init__(self, most: int, most_per_address: int = 0) -> None:
        """`most_per_address` 0: as many as there may be in all."""
        self._most = most
        self._most_per_address = most_per_address
        self._addresses: dict[Connection, str] = {}
        self._of_address: Counter[str] = Counter()
        self._waiting: dict[Connection, Engaged] = {}
        """Those that can give way. First who has waited longest: who has just come will speak in a moment, while a
        crowd of those that do not is older, whatever it has begun."""
        self._heads = 0
        self._refused: set[Connection] = set()

    def admit(self, connection: Connection, address: str) -> None:
        """Count a new connection in; another that does nothing may have to go for it.

        Raises:
            TooManyConnections: all that there are have requests under way, or its address has too many.
        """
        if 0 < self._most_per_address <= self._of_address[address]:
            raise TooManyConnections(f"Your address has {self._most_per_address} connections open, which is the limit.")
        if len(self._addresses) >= self._most and not self._end_oldest(frozenset(Engaged)):
            raise TooManyConnections("The server has as many connections as it can keep; please try again.")
        self._addresses[connection] = address
        self._of_address[address] += 1
        self._waiting[connection] = Engaged.NOT

    def refuse(self, connection: Connection) -> bool:
        """Whether there is time to tell a connection that was not admitted why."""
        if len(self._refused) >= REFUSED_AT_ONCE:
            return False
        self._refused.add(connection)
        return True

    def place(self, connection: Connection, engaged: Engaged) -> None:
        """From now on it is so much engaged."""
        if connection not in self._addresses:
            return
        self._waiting.pop(connection, None)
        if engaged is not Engaged.BUSY:
            self._waiting[connection] = engaged

    def hold_head(self, size: int) -> None:
        """Count more bytes of heads that are not complete; with too many, the oldest give way. Negative: less."""
        self._heads += size
        while self._heads > MAX_HEADS_BYTES and self._end_oldest(frozenset({Engaged.ASKING})):
            pass

    def remove(self, connection: Connection) -> None:
        """It has ended."""
        self._refused.discard(connection)
        address = self._addresses.pop(connection, None)
        if address is None:
            return
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]
        self._waiting.pop(connection, None)

    def _end_oldest(self, kinds: frozenset[Engaged]) -> bool:
        oldest = next((one for one, engaged in self._waiting.items() if engaged in kinds), None)
        if oldest is None:
            return False
        oldest.give_way()
        self.remove(oldest)
        return True
