"""Preflights of pages that may not call the API: told which setting would let them (Fetch standard, 3.3)."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from server.errors import Forbidden
from server.routes.middleware import request_id_from
from server.routes.replies import error_response

MAX_SHOWN = 100


class Preflights:
    """Answers what a browser asks before it lets the page of another origin send something."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        """`origins`: whose pages may call the API, or `*`."""
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and "*" not in self._origins:
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin and "access-control-request-method" in headers and origin not in self._origins:
                message = f"Pages of {origin[:MAX_SHOWN]} may not call this server; --cors-origins ORIGIN lets them."
                reply = error_response(Forbidden(message))
                reply.headers["x-request-id"] = request_id_from(headers.get("x-request-id"))
                await reply(scope, receive, send)
                return
        await self._app(scope, receive, send)
