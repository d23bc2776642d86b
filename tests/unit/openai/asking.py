"""Requests for the tests of this room: from JSON as clients send it to a Conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.core import Conversation, Source
from server.errors import BadRequest
from server.openai.chat.body import ChatCompletionRequest
from server.openai.chat.request import to_conversation
from server.openai.json_body import JsonBody
from server.openai.media.parts import LOW_DETAIL_PIXELS
from server.openai.parse import parse


def conversation(
    *messages: dict[str, Any], max_choices: int = 8, low_pixels: int = LOW_DETAIL_PIXELS, **more: Any
) -> Conversation:
    """What messages, and other fields of a body, are translated to."""
    body = json.dumps({"model": "m", "messages": list(messages) or [{"role": "user", "content": "Hello"}], **more})
    sent = JsonBody.whole(body.encode())
    return to_conversation(parse(ChatCompletionRequest, sent), sent.find, "req-1", max_choices, low_pixels)


def sources(*parts: dict[str, Any], **more: Any) -> tuple[Source, ...]:
    """What the parts of one message are translated to."""
    return conversation({"role": "user", "content": list(parts)}, **more).sources


def refused(*parts: dict[str, Any], **more: Any) -> BadRequest:
    """Why the parts of one message are not translated."""
    with pytest.raises(BadRequest) as caught:
        sources(*parts, **more)
    return caught.value
