"""How every endpoint answers whose work the model does: read the body, see what is asked, begin, reply.

An API gives the two ends: what it makes of a body, and how it writes an answer or a stream.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import anyio.to_thread
from fastapi import Request
from fastapi.responses import Response

from server.admission.deadline import Deadline
from server.admission.gate import Arrival
from server.core import Answer, Caller, Conversation, MediaFact
from server.inference import EventStream
from server.openai.json_body import JsonBody
from server.routes.early_refusal import kept_arrival
from server.routes.replies import read_json, unless_gone
from server.routes.reply_headers import affinity_header, ignored_header, load_header
from server.routes.streaming import EventStreamResponse, StreamWriter
from server.routes.terms import TIMEOUT_HEADER, seconds_allowed
from server.services import Services

LARGE_BYTES = 1 << 13
"""Of JSON, media not counted, that leave the event loop for a thread to be read: a body of thousands of messages takes
tens of milliseconds, in which nobody else would be served."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What an API makes of a body: what is asked, and how it is to be answered."""

    conversation: Conversation
    streamed: bool
    timeout: float | None
    """Seconds that the body allows."""
    whole: Callable[[Answer], bytes]
    """A whole reply as JSON."""
    writer: Callable[[tuple[MediaFact, ...]], StreamWriter]
    """Of a stream, given what became of its media."""


Read = Callable[[JsonBody, Services], Plan]
"""Raises ApiError for what cannot be honoured."""


async def answer(request: Request, read: Read) -> Response:
    """The reply to a request, whole or as a stream of server-sent events.

    Raises:
        ApiError: there is nothing to answer with; nothing has been sent.
        ClientGone: nobody waits for it.
    """
    services: Services = request.app.state.services
    caller: Caller = request.state.caller
    # Before a body of megabytes is read; the ticket comes once it is parsed.
    arrival = kept_arrival(request.scope) or services.gate.arrive(caller.name)
    with contextlib.closing(arrival):
        return await _answer(request, read, services, caller, arrival)


async def _answer(request: Request, read: Read, services: Services, caller: Caller, arrival: Arrival) -> Response:
    plan = await _read(read, await read_json(request), services)
    settings = services.settings
    deadline = Deadline(seconds_allowed(request.headers.get(TIMEOUT_HEADER), plan.timeout, settings.request_timeout_s))
    inference = services.require_inference()
    headers = ignored_header(plan.conversation.ignored)
    headers |= await affinity_header(request.headers, plan.conversation.sources)
    work: Awaitable[EventStream | Answer] = (
        inference.begin(plan.conversation, caller) if plan.streamed else inference.answer(plan.conversation, caller)
    )
    whole, writer = plan.whole, plan.writer
    del plan  # it may hold megabytes of pictures, and an answer may take minutes
    made = await unless_gone(request, deadline.met_by(_entering(arrival, work)))
    headers |= load_header(request.headers, services.gate)
    if isinstance(made, Answer):
        return _json(whole(made), headers)
    return EventStreamResponse(made, writer(made.media), deadline, settings.ping_s, headers)


async def _read(read: Read, sent: JsonBody, services: Services) -> Plan:
    if len(sent.json) < LARGE_BYTES:
        return read(sent, services)
    return await anyio.to_thread.run_sync(read, sent, services, limiter=services.reading)


def _json(content: bytes, headers: Mapping[str, str]) -> Response:
    return Response(content, media_type="application/json", headers=dict(headers))


async def _entering(arrival: Arrival, work: Awaitable[T]) -> T:
    """Begin the work: the first thing it does is to enter, in the place that the arrival has kept for it."""
    arrival.close()
    return await work
