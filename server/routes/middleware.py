"""What surrounds every request, as plain ASGI: its id and its log line, errors, authentication, limits of the body."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.admission.bodies import BodyBudget
from server.admission.keys import ANONYMOUS
from server.admission.presence import Presence, why_cut
from server.errors import (
    ApiError,
    BadRequest,
    BodyTooLarge,
    Forbidden,
    InternalError,
    MethodNotAllowed,
    NotFound,
    RequestTimeout,
)
from server.routes.access import NOTHING_HERE, WATCHED_PATHS, Access
from server.routes.replies import ClientGone, error_response
from server.settings import is_loopback
from server.telemetry import logs, metrics, traces

log = logging.getLogger("ain.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
SIMPLE_CONTENT_TYPES = frozenset({"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"})
"""What a web page may send anywhere without asking first (the Fetch standard's CORS-safelisted types)."""

OF_PAGES = frozenset({b"origin", b"sec-fetch-site"})
"""Headers that browsers alone send."""

CLIENT_GONE = 499
"""nginx' status for a client that went away; only logs and metrics ever see it."""


class RequestContext:
    """Gives a request its id, turns every error into OpenAI's shape, and leaves one line in the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = request_id_from(headers.get("x-request-id"))
        logs.request_id.set(request_id)  # each request has a task, and with it a context, of its own
        with _span(scope, headers) as span:
            await self._answer(scope, receive, _Reply(send, request_id), request_id, span)

    async def _answer(self, scope: Scope, receive: Receive, reply: _Reply, request_id: str, span: traces.Span) -> None:
        started = time.perf_counter()
        try:
            await self._app(scope, receive, reply.send)
        except asyncio.CancelledError:
            if not reply.status:
                await error_response(why_cut(scope.get("state", {})))(scope, receive, reply.send)
        except (ClientGone, ClientDisconnect):
            reply.status = CLIENT_GONE
        except Exception as error:
            if reply.status:
                raise
            if not isinstance(error, ApiError | HTTPException):
                log.exception("request %s failed", request_id)
            # In a function of its own: an error that this frame knows would keep all that the request held.
            await _fail(as_api_error(error), scope, receive, reply)
        finally:
            _record(scope, reply.status or CLIENT_GONE, time.perf_counter() - started, request_id, span)


async def _fail(failure: ApiError, scope: Scope, receive: Receive, reply: _Reply) -> None:
    metrics.count_failure(failure)
    await error_response(failure)(scope, receive, reply.send)


class _Reply:
    """Passes a reply on, adds the request's id to it and remembers its status; 0 as long as none has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self._request_id
        await self._send(message)


def request_id_from(given: str | None) -> str:
    """The client's own id where it is a sane one, so that its logs and ours can be matched."""
    return given if given and REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"


def as_api_error(error: Exception) -> ApiError:
    """Any failure as an error that a client may see."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        if error.status_code == 405:
            return MethodNotAllowed("This address does not answer that method.")
        return NotFound(NOTHING_HERE)
    return InternalError("The server failed to answer this request.")


def _span(scope: Scope, headers: Headers) -> traces.Span:
    """The request's span; none for those who only look, every second or more."""
    if scope["path"] in WATCHED_PATHS:
        return traces.OFF
    return traces.request_span(scope["method"], scope["path"], headers.get)


def _record(scope: Scope, status: int, seconds: float, request_id: str, span: traces.Span) -> None:
    route = getattr(scope.get("route"), "path", "other")
    metrics.count_request(scope["method"], route, status, seconds)
    gone = status == CLIENT_GONE  # which is no status of HTTP's
    span.answered("" if route == "other" else route, 0 if gone else status, "client_gone" if gone else "")
    # Probes come every second from every balancer, and more often: only those who debug want to read them.
    level = logging.DEBUG if scope["path"] in WATCHED_PATHS else logging.INFO
    fields = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 6)}
    log.log(level, "%s %s %s %.3f s %s", scope["method"], route, status, seconds, request_id, extra=fields)


class LoopbackGuard:
    """Keeps web pages away from a server that asks for no key because only this machine can reach it.

    A page that a person visits can send requests to 127.0.0.1. A name of the page's own that leads there (DNS
    rebinding) shows in the Host header, a form or a `fetch` without preflight in a content type no API client uses.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if not is_loopback(_hostname(headers.get("host", "localhost"))):
                raise Forbidden(
                    "This server has no keys and answers only to its own machine's name (localhost). Behind a proxy "
                    "give it keys, or start it with --allow-unauthenticated."
                )
            if headers.get("content-type", "").partition(";")[0].strip().lower() in SIMPLE_CONTENT_TYPES:
                raise BadRequest("Send the header 'Content-Type: application/json'.", code="invalid_content_type")
        await self._app(scope, receive, send)


class PageGuard:
    """Keeps the web pages of strangers away from a server that asks for no key.

    A page may send a body anywhere with no content type at all, and without asking first (`fetch` of a Blob with mode
    no-cors). Browsers say whose page it is: in `Origin` with every POST, in `Sec-Fetch-Site` with all (Fetch standard,
    3.1 and Fetch Metadata, 2.3). Nobody else sends these headers.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        """Whose pages may call the API, or `*`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_of_page(scope) and self._is_foreign(Headers(scope=scope)):
            raise Forbidden(
                "This server has no keys and answers no web pages of other sites. Name the page's origin with "
                "--cors-origins, or give the server keys."
            )
        await self._app(scope, receive, send)

    def _is_of_page(self, scope: Scope) -> bool:
        return "*" not in self._origins and any(name in OF_PAGES for name, _ in scope["headers"])

    def _is_foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        if origin is None:
            return headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate"
        _, _, place = origin.partition("://")
        own = bool(place) and (place == headers.get("host") or is_loopback(_hostname(place)))
        return origin not in self._origins and not own


def _hostname(host: str) -> str:
    """The Host header without its port."""
    return host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


class Authentication:
    """Names the caller, or refuses."""

    def __init__(self, app: ASGIApp, access: Access, presence: Presence) -> None:
        self._app = app
        self._access = access
        self._presence = presence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        keys = self._access.keys_for(scope) if scope["type"] == "http" else None
        if keys is None:
            await self._app(scope, receive, send)
            return
        caller = keys.authenticate(Headers(scope=scope).get("authorization"))
        state = scope.setdefault("state", {})
        state["caller"] = caller
        with self._presence.of(caller.tenant, state):
            await self._app(scope, receive, send)


class BodyLimit:
    """Refuses bodies that are too large, by their own word or by count, and clients that take too long to send one.

    Its bytes count in `budget` from the first until the reply begins: neither many connections that never finish nor
    many large requests at once can fill the memory.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, budget: BodyBudget, timeout_s: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self.budget = budget
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._max_bytes:
            raise self._too_large()
        caller = scope.get("state", {}).get("caller", ANONYMOUS)
        body = _Body(self, caller.tenant, receive, send, asyncio.get_running_loop().time() + self._timeout_s)
        try:
            await self._app(scope, body.receive, body.send)
        finally:
            body.release()

    def check(self, received: int) -> None:
        """Raises BodyTooLarge for a body that has so many bytes by now."""
        if received > self._max_bytes:
            raise self._too_large()

    def too_slow(self) -> RequestTimeout:
        """The error for a body that does not come."""
        return RequestTimeout(f"The request body did not arrive within {self._timeout_s:g} seconds.")

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"The request body is larger than {self._max_bytes >> 20} MiB.")


class _Body:
    """One body on its way in."""

    def __init__(self, limit: BodyLimit, tenant: str, receive: Receive, send: Send, deadline: float) -> None:
        self._limit = limit
        self._tenant = tenant
        self._receive = receive
        self._send = send
        self._deadline = deadline
        self._received = self._held = 0
        self._complete = False

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise self._limit.too_slow() from None
        size = len(message.get("body", b""))
        self._received += size
        self._limit.check(self._received)
        self._limit.budget.take(size, self._tenant)
        self._held += size
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._held:  # the reply begins: what was asked has been turned into an engine's input, or refused
            self.release()
        await self._send(message)

    def release(self) -> None:
        """Its bytes are not needed any more. Safe to call twice."""
        self._limit.budget.give_back(self._held, self._tenant)
        self._held = 0
