"""What is held against requests that were in the engine when it died, also when they come again."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Hashable

from server.core import GenerationRequest

SUSPECT = 1.0
"""From here on a request goes into the engine alone among its like."""
POISON = 2.0
"""Here it is taken for the cause: in the engine at two crashes, with nobody else to blame."""
VAGUE = 0.5
"""Against each, where an engine dies of no request in particular: mostly somebody has killed it."""
REMEMBERED_S = 3600.0
REMEMBERED = 1024
"""Requests. Nothing else is told of them to anybody, and nothing of what they say is kept."""


class Suspicion:
    """Remembers requests by what they ask, not by who asks: the same one sent again is the same suspect."""

    def __init__(self) -> None:
        self._against: OrderedDict[int, tuple[float, float]] = OrderedDict()
        """How much, and when it was last added to; by the hash of what is asked."""

    def against(self, asked: Hashable) -> float:
        """What is held against a request."""
        if not self._against:  # as always, nearly: hashing costs
            return 0.0
        much, since = self._against.get(hash(asked), (0.0, 0.0))
        return much if time.monotonic() - since < REMEMBERED_S else 0.0

    def add(self, asked: Hashable, much: float) -> float:
        """Hold more against a request; returns how much that is altogether."""
        much += self.against(asked)
        self._against[hash(asked)] = much, time.monotonic()
        self._against.move_to_end(hash(asked))
        while len(self._against) > REMEMBERED:
            self._against.popitem(last=False)
        return much

    def clear(self, asked: Hashable) -> None:
        """It has gone through: nothing is held against it any more."""
        if self._against:
            self._against.pop(hash(asked), None)


class Fingerprint:
    """What a request asks, for comparing: without its pictures, which are megabytes, and without who asks."""

    __slots__ = ("_parts",)

    def __init__(self, request: GenerationRequest) -> None:
        digests = tuple((placed.picture.digest, placed.picture.grid_thw) for placed in request.prompt.pictures)
        self._parts = request.prompt.token_ids, digests, request.sampling

    def __hash__(self) -> int:
        token_ids, digests, sampling = self._parts
        return hash((tuple(token_ids), digests, sampling))
