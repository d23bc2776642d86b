"""POST /v1/chat/completions."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.admission.deadline import Deadline
from server.admission.gate import Arrival
from server.core import Answer, Caller
from server.inference import EventStream
from server.openai.chat.body import ChatCompletionRequest
from server.openai.chat.parameters import refuse
from server.openai.chat.reply import ChunkWriter, ReplyHead, completion
from server.openai.chat.request import FLEX, to_conversation
from server.openai.media.parts import low_detail_pixels
from server.openai.parse import parse
from server.routes.openapi import body_schema
from server.routes.replies import read_json, unless_gone
from server.routes.reply_headers import affinity_header, ignored_header, load_header
from server.routes.streaming import EventStreamResponse
from server.routes.terms import TIMEOUT_HEADER, seconds_allowed
from server.services import Services

router = APIRouter(tags=["chat"])

T = TypeVar("T")


@router.post("/chat/completions", include_in_schema=False)
@router.post("/v1/chat/completions", openapi_extra=body_schema(ChatCompletionRequest))
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation about text, pictures, clips and PDFs, whole or as a stream of server-sent events."""
    services: Services = request.app.state.services
    caller: Caller = request.state.caller
    # Before a body of megabytes is read; the ticket comes once it is parsed.
    arrival = request.scope["state"].get("arrival") or services.gate.arrive(caller.name)
    with contextlib.closing(arrival):
        return await _answer(request, services, caller, arrival)


async def _answer(request: Request, services: Services, caller: Caller, arrival: Arrival) -> Response:
    settings = services.settings
    sent = await read_json(request)
    body = parse(ChatCompletionRequest, sent)
    services.require_model(body.model)
    deadline = Deadline(seconds_allowed(request.headers.get(TIMEOUT_HEADER), body.timeout, settings.request_timeout_s))
    low_pixels = low_detail_pixels(settings.min_pixels, settings.max_pixels)
    request_id = f"chatcmpl-{uuid.uuid4().hex}"
    words = services.template_words
    conversation = to_conversation(body, sent.find, request_id, settings.max_choices, low_pixels, words)
    if settings.unknown_parameters == "refuse":
        refuse(conversation.ignored)
    tier = FLEX if conversation.flex else "default"
    head = ReplyHead(conversation.request_id, services.model_names[0], tier, services.fingerprint)
    inference = services.require_inference()
    headers = ignored_header(conversation.ignored)
    headers |= await affinity_header(request.headers, conversation.sources)
    n, streamed, with_media = conversation.sampling.n, bool(body.stream), bool(body.return_media_info)
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    work: Awaitable[EventStream | Answer] = (
        inference.begin(conversation, caller) if streamed else inference.answer(conversation, caller)
    )
    # Both may hold megabytes of pictures, and an answer may take minutes.
    del sent, body, conversation
    made = await unless_gone(request, deadline.met_by(_entering(arrival, work)))
    headers |= load_header(request.headers, services.gate)
    if isinstance(made, Answer):
        content = completion(head, made, with_media=with_media)
        return Response(content, media_type="application/json", headers=headers)
    writer = ChunkWriter(head, n, include_usage=include_usage, media=made.media, with_media=with_media)
    return EventStreamResponse(made, writer, deadline, settings.ping_s, headers)


async def _entering(arrival: Arrival, work: Awaitable[T]) -> T:
    """Begin the work: the first thing it does is to enter, in the place that the arrival has kept for it."""
    arrival.close()
    return await work
