"""How many bytes of strangers' files the house holds at once, as request bodies and as what was fetched for them."""

from __future__ import annotations

from collections import Counter

from server.errors import TooManyBodies


class BodyBudget:
    """Counts bytes, and refuses more of them than there is memory for. Belongs to one event loop.

    A caller that has a key may have one body, of `most_of_one` bytes, and beyond that as much as is left free for all
    others: one caller takes half, a second half of the rest, so that there is room for whoever comes next.
    """

    def __init__(self, size: int, most_of_one: int) -> None:
        """`size`: bytes in all; at least as many as one body may have."""
        self._size = max(size, most_of_one)
        self._most_of_one = most_of_one
        self.held = 0
        self._held_of: Counter[str] = Counter()

    def take(self, size: int, tenant: str) -> None:
        """Count `size` more bytes.

        Raises:
            TooManyBodies: all together, or those of its tenant, are over their bound; nothing was counted.
        """
        free = self._size - self.held - size
        if free < 0:
            raise TooManyBodies("The server holds as many request bodies as it has memory for; please try again.")
        if tenant and self._held_of[tenant] + size > max(self._most_of_one, free):
            raise TooManyBodies("Your key has as many request bodies here as one key may have; please try again.")
        self.held += size
        self._held_of[tenant] += size

    def give_back(self, size: int, tenant: str) -> None:
        """Count off bytes that nobody needs any more."""
        self.held -= size
        self._held_of[tenant] -= size
        if not self._held_of[tenant]:
            del self._held_of[tenant]
