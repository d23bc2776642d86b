"""POST /v1/chat/completions."""

from __future__ import annotations

import uuid
from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import Response

from server.openai.chat.body import ChatCompletionRequest
from server.openai.chat.parameters import refuse
from server.openai.chat.reply import ChunkWriter, ReplyHead, completion
from server.openai.chat.request import FLEX, to_conversation
from server.openai.json_body import JsonBody
from server.openai.media.parts import low_detail_pixels
from server.openai.parse import parse
from server.routes.answering import Plan, answer
from server.routes.openapi import body_schema
from server.services import Services

router = APIRouter(tags=["chat"])


@router.post("/chat/completions", include_in_schema=False)
@router.post("/v1/chat/completions", openapi_extra=body_schema(ChatCompletionRequest))
async def create_chat_completion(request: Request) -> Response:
    """Answer a conversation about text, pictures, clips and PDFs, whole or as a stream of server-sent events."""
    return await answer(request, _plan)


def _plan(sent: JsonBody, services: Services) -> Plan:
    settings = services.settings
    body = parse(ChatCompletionRequest, sent)
    services.require_model(body.model)
    conversation = to_conversation(
        body,
        sent.find,
        f"chatcmpl-{uuid.uuid4().hex}",
        settings.max_choices,
        low_detail_pixels(settings.min_pixels, settings.max_pixels),
        services.template_words,
    )
    if settings.unknown_parameters == "refuse":
        refuse(conversation.ignored)
    tier = FLEX if conversation.flex else "default"
    head = ReplyHead(conversation.request_id, services.model_names[0], tier, services.fingerprint)
    with_media = bool(body.return_media_info)
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    n = conversation.sampling.n
    return Plan(
        conversation,
        streamed=bool(body.stream),
        timeout=body.timeout,
        whole=partial(completion, head, with_media=with_media),
        writer=lambda media: ChunkWriter(head, n, include_usage=include_usage, media=media, with_media=with_media),
    )
