"""POST /v1/chat/completions."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.inference import Answer, EventStream
from server.protocol.chat import ChatCompletionRequest
from server.routes.openapi import body_schema
from server.routes.replies import EventStreamResponse, read_body, unless_gone
from server.services import Services
from server.translate.chat_reply import ChunkWriter, ReplyHead, completion
from server.translate.chat_request import to_conversation
from server.translate.media_parts import low_detail_pixels
from server.translate.parse import parse

router = APIRouter(tags=["chat"])


@router.post("/v1/chat/completions", openapi_extra=body_schema(ChatCompletionRequest))
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation about text, pictures, clips and PDFs, whole or as a stream of server-sent events."""
    services: Services = request.app.state.services
    services.gate.require_room()  # before a body of megabytes is read; the ticket itself is taken once it is parsed
    body = parse(ChatCompletionRequest, await read_body(request))
    services.require_model(body.model)
    head = ReplyHead(f"chatcmpl-{uuid.uuid4().hex}", services.model_names[0])
    settings = services.settings
    low_pixels = low_detail_pixels(settings.min_pixels, settings.max_pixels)
    conversation = to_conversation(body, head.id, settings.max_choices, low_pixels)
    inference, caller = services.require_inference(), request.state.caller
    n, streamed, with_media = conversation.sampling.n, bool(body.stream), bool(body.return_media_info)
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    work: Awaitable[EventStream | Answer] = (
        inference.begin(conversation, caller) if streamed else inference.answer(conversation, caller)
    )
    # Both may hold megabytes of pictures, and an answer may take minutes.
    del body, conversation
    made = await unless_gone(request, work)
    if isinstance(made, Answer):
        return Response(completion(head, made, with_media=with_media), media_type="application/json")
    media = made.media if with_media else None
    return EventStreamResponse(made, ChunkWriter(head, n, include_usage=include_usage, media=media))
