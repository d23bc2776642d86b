"""POST /v1/chat/completions."""

from __future__ import annotations

import uuid

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.protocol.chat import ChatCompletionRequest
from server.routes.openapi import body_schema
from server.routes.replies import EventStreamResponse, unless_gone
from server.services import Services
from server.translate.chat_reply import ChunkWriter, ReplyHead, completion
from server.translate.chat_request import to_conversation
from server.translate.parse import parse

router = APIRouter(tags=["chat"])


@router.post("/v1/chat/completions", openapi_extra=body_schema(ChatCompletionRequest))
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation about text and pictures, whole or as a stream of server-sent events."""
    services: Services = request.app.state.services
    services.gate.require_room()  # before a body of megabytes is read; the ticket itself is taken once it is parsed
    body = parse(ChatCompletionRequest, await request.body())
    services.require_model(body.model)
    head = ReplyHead(f"chatcmpl-{uuid.uuid4().hex}", services.model_names[0])
    conversation = to_conversation(body, head.id, services.settings.max_choices)
    inference, caller = services.require_inference(), request.state.caller
    if not body.stream:
        answer = await unless_gone(request, inference.answer(conversation, caller))
        return Response(completion(head, answer), media_type="application/json")
    stream = await unless_gone(request, inference.begin(conversation, caller))
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    return EventStreamResponse(stream, ChunkWriter(head, conversation.sampling.n, include_usage=include_usage))
