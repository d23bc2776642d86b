"""Writes a stream of server-sent events, and sees to it that nothing outlives it: no work, no place, no wait.

A stream ends in one of these ways, and always gives back what it holds:

    its end                the writer's last words
    an error               the writer's words for it
    its deadline           the same
    the server shuts down  the same
    its key is revoked     the same
    the client has gone    nothing: nobody reads it
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, cast

import anyio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from server.admission.deadline import Deadline
from server.admission.presence import why_cut
from server.core import Event
from server.errors import ApiError, InternalError
from server.inference import EventStream
from server.openai import sse
from server.routes.replies import until_gone
from server.telemetry import metrics, traces

log = logging.getLogger(__name__)

SSE_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""Keeps nginx and other proxies from gathering a stream before they pass it on."""
LAST_WORDS_S = 0.5
"""For the error frame of a stream that is cut when the server shuts down."""

END: Message = {"type": "http.response.body", "body": b"", "more_body": False}

Write = Callable[[bytes], Awaitable[None]]


class StreamWriter(Protocol):
    """Writes a stream in the words of one API; each returns whole frames, or nothing where there is nothing to say."""

    @property
    def id(self) -> str:
        """Of the request, for the log."""

    def opening(self) -> bytes:
        """What comes before all events."""

    def write(self, event: Event) -> bytes:
        """What tells of an event. Called once for every token: what is the same in all frames is made before."""

    def failed(self, error: ApiError) -> bytes:
        """What ends a stream that cannot go on."""

    def close(self) -> bytes:
        """What ends a stream that is complete."""


class EventStreamResponse(Response):
    """A streamed answer. However it ends, the engine's work ends with it and the ticket is given back."""

    def __init__(
        self, stream: EventStream, writer: StreamWriter, deadline: Deadline, ping_s: float, headers: Mapping[str, str]
    ) -> None:
        super().__init__(headers={**SSE_HEADERS, **headers}, media_type="text/event-stream")
        del self.headers["content-length"]  # of the empty body that there is not
        self._stream = stream
        self._writer = writer
        self._deadline = deadline
        self._ping_s = ping_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(frames: bytes) -> None:
            await send({"type": "http.response.body", "body": frames, "more_body": True})

        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if await self._write_until_gone(write, receive):
                await send(END)
        except asyncio.CancelledError:
            await _last_words(send, self._writer.failed(why_cut(scope.get("state", {}))))
        finally:
            with anyio.CancelScope(shield=True):
                await self._stream.aclose()

    async def _write_until_gone(self, write: Write, receive: Receive) -> bool:
        """Whether the client has stayed to the end."""
        writing = cast("asyncio.Task[None]", asyncio.current_task())
        gone = asyncio.ensure_future(until_gone(receive))
        is_writing = True

        def cut(watch: asyncio.Future[None]) -> None:
            if is_writing and not watch.cancelled():
                writing.cancel()

        gone.add_done_callback(cut)
        try:
            await self._write(write)
        except asyncio.CancelledError:
            if gone.done() and not writing.uncancel():
                return False
            raise
        finally:
            is_writing = False
            gone.cancel()
        return True

    async def _write(self, write: Write) -> None:
        try:
            async with self._deadline.enforced():
                await self._write_events(write)
        except ApiError as error:
            metrics.ERRORS.labels(str(error.code)).inc()
            traces.current.get().set(error=str(error.code))
            await write(self._writer.failed(error))
        except Exception:
            log.exception("the stream of %s broke", self._writer.id)
            await write(self._writer.failed(InternalError("The server failed in the middle of this reply.")))

    async def _write_events(self, write: Write) -> None:
        frame_of = self._writer.write
        silence = Silence(self._ping_s, write)
        try:
            await write(self._writer.opening())
            async for event in self._stream:
                if frame := frame_of(event):
                    silence.broken()
                    await write(frame)
            await write(self._writer.close())
        finally:
            silence.end()


class Silence:
    """Writes a comment whenever nothing else was written for some seconds; a stream that flows pays nothing for it."""

    def __init__(self, seconds: float, write: Write) -> None:
        self._seconds = seconds
        self._write = write
        self._was_broken = False
        self._ping: asyncio.Future[None] | None = None
        self._timer = self._listen()

    def broken(self) -> None:
        """Something is being written."""
        self._was_broken = True

    def end(self) -> None:
        """Write no more comments."""
        self._timer.cancel()
        if self._ping is not None:
            self._ping.cancel()

    def _listen(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._seconds, self._over)

    def _over(self) -> None:
        if not self._was_broken and (self._ping is None or self._ping.done()):
            self._ping = asyncio.ensure_future(self._write(sse.PING))
        self._was_broken = False
        self._timer = self._listen()


async def _last_words(send: Send, words: bytes) -> None:
    """Why it is cut, and a proper end of the reply: clients take one without it for a connection that broke."""
    with anyio.move_on_after(LAST_WORDS_S, shield=True):
        await send({"type": "http.response.body", "body": words, "more_body": True})
        await send(END)
