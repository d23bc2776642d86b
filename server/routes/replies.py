"""Reading bodies and writing replies, as several routes do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive

from server.errors import ApiError
from server.inference import EventStream
from server.openai.json_body import LONG_BYTES, JsonBody

T = TypeVar("T")

SLICE_BYTES = 1 << 13
"""Of a body, looked at in one go: even of the worst that takes three milliseconds."""
TURN_S = 0.002
"""After so long at work for one body it is the others' turn. Whoever asks for something small waits for several turns
until it is answered, so a turn is to be short."""


class ClientGone(Exception):
    """The client closed its connection before there was anything to send; nobody reads a reply."""


def error_response(error: ApiError) -> Response:
    """An error in OpenAI's shape."""
    return Response(
        orjson.dumps(error.body()), status_code=error.status, headers=error.headers(), media_type="application/json"
    )


async def read_json(request: Request) -> JsonBody:
    """The body, taken apart as it comes; the request does not keep it: it may be large, and the reply take minutes.

    Raises BadRequest for one that would cost too much to parse.
    """
    body = JsonBody()
    turn = time.perf_counter() + TURN_S
    small: bytes | None = b""
    async for piece in request.stream():
        if small is not None:
            small += piece
            if len(small) < LONG_BYTES:
                continue
            piece, small = small, None
        for start in range(0, len(piece), SLICE_BYTES):
            if time.perf_counter() > turn:
                await asyncio.sleep(0)
                turn = time.perf_counter() + TURN_S
            body.feed(piece[start : start + SLICE_BYTES])
    return body if small is None else JsonBody.whole(small)


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """Await `work`, but cancel it as soon as the client goes away.

    Raises:
        ClientGone: it went away.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(until_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    except asyncio.CancelledError:
        task.add_done_callback(_discard)
        raise
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        del task  # its error knows this frame: together they would keep all that the request held


def _discard(task: asyncio.Future[Any]) -> None:
    """Close a stream that was ready in the very moment in which nobody wanted it any more."""
    if not task.cancelled() and task.exception() is None and isinstance(task.result(), EventStream):
        _closing.add(closing := asyncio.ensure_future(task.result().aclose()))
        closing.add_done_callback(_closing.discard)


_closing: set[asyncio.Future[None]] = set()
"""Tasks that nobody awaits; asyncio itself holds them only weakly."""


async def until_gone(receive: Receive) -> None:
    """Return when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
