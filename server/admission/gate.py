"""Who may enter: a bounded number of requests in the house, fetching and decoding included.

A ticket is taken before any costly work and travels with the reply's stream until that ends, on every path.
"""

from __future__ import annotations

from server.errors import Draining, Overloaded


class Ticket:
    """A request's right to be in the house; closing it twice does no harm."""

    def __init__(self, gate: Gate) -> None:
        self._gate: Gate | None = gate

    def close(self) -> None:
        """Give the place back."""
        if self._gate is not None:
            self._gate.inside -= 1
            self._gate = None


class Gate:
    """Counts requests in and out, and refuses at once when the house is full or closing."""

    def __init__(self, max_requests: int) -> None:
        self.max_requests = max_requests
        self.inside = 0
        """Requests in the house at this moment."""
        self.draining = False

    def require_room(self) -> None:
        """Refuse at once what could not enter now.

        Raises:
            Overloaded: the house is full.
            Draining: the server is shutting down.
        """
        if self.draining:
            raise Draining
        if self.inside >= self.max_requests:
            raise Overloaded(f"The server is working on {self.inside} requests and takes no more; please try again.")

    def enter(self) -> Ticket:
        """Take a place.

        Raises:
            Overloaded, Draining: see `require_room`.
        """
        self.require_room()
        self.inside += 1
        return Ticket(self)

    def drain(self) -> None:
        """Let nobody in from here on."""
        self.draining = True
