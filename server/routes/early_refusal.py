"""Refuses requests for which there is no room, from their heads alone.

When ten times as many come as the engine can answer, nine of ten are refused. By way of the middleware and the route
these took almost half of the server's time, which the answers of others then lacked.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import cast

import orjson
from starlette.types import Scope

from server.admission.gate import Arrival
from server.errors import ApiError, Overloaded, RateLimited
from server.routes.middleware import request_id_from
from server.services import Services
from server.telemetry import metrics

log = logging.getLogger("ain.access")

ROUTES = {b"/v1/chat/completions": "/v1/chat/completions", b"/chat/completions": "/v1/chat/completions"}
"""The routes that have the model work, by the URLs under which clients ask for them."""
MORE_THAN_A_REPLY = frozenset({b"expect", b"origin", b"upgrade"})
"""Headers that want something else as well."""
ARRIVAL = "arrival"
"""Under this name, in a request's state."""
TELL_EVERY_S = 1.0
"""A line in the log for each would cost as much as the refusal."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A whole reply."""

    head: bytes
    """Status and headers, without those that all replies have and without the empty line."""
    body: bytes


class EarlyRefusal:
    """Stands before the routes of a server. Belongs to one event loop."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._untold: Counter[tuple[str, str]] = Counter()

    def meet(self, method: bytes, url: bytes, headers: Sequence[tuple[bytes, bytes]]) -> Arrival | Refusal | None:
        """What a request gets when its head has come; None for what the routes have to judge."""
        route = ROUTES.get(url)
        if route is None or method != b"POST":
            return None
        found = dict(headers)
        try:
            caller = self._services.keys.authenticate(_text(found.get(b"authorization")))
            return self._services.gate.arrive(caller.name)
        except (Overloaded, RateLimited) as error:
            if not MORE_THAN_A_REPLY.isdisjoint(found):
                return None
            self._count(route, error)
            return _refusal(error, request_id_from(_text(found.get(b"x-request-id"))))
        except ApiError:
            return None

    def _count(self, route: str, error: ApiError) -> None:
        metrics.count_failure(error)
        metrics.count_request("POST", route, error.status, 0.0)
        if not self._untold:
            asyncio.get_running_loop().call_later(TELL_EVERY_S, self._tell)
        self._untold[route, str(error.code)] += 1

    def _tell(self) -> None:
        for (route, code), count in self._untold.items():
            fields = {"method": "POST", "route": route, "code": code, "count": count}
            log.info("POST %s: %d refused at the door, %s", route, count, code, extra=fields)
        self._untold.clear()


def keep_arrival(scope: Scope, arrival: Arrival) -> None:
    """Give a request the place that was kept for it when its head came."""
    scope["state"][ARRIVAL] = arrival


def kept_arrival(scope: Scope) -> Arrival | None:
    """That place; None where the head was not judged."""
    return cast("Arrival | None", scope["state"].get(ARRIVAL))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _refusal(error: ApiError, request_id: str) -> Refusal:
    body = orjson.dumps(error.body())
    headers = {
        **error.headers(),
        "content-length": str(len(body)),
        "content-type": "application/json",
        "x-request-id": request_id,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return Refusal(f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n{lines}".encode(), body)
