"""An engine's events to the Chat Completions wire, whole or streamed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from server.core import Answer, Event, Finished, MediaFact, TextDelta, Usage
from server.errors import ApiError
from server.openai import sse
from server.openai.logprobs import logprobs_object
from server.openai.media.info import media_info

NONE_OF_THESE = {
    "reasoning_tokens": 0,
    "audio_tokens": 0,
    "accepted_prediction_tokens": 0,
    "rejected_prediction_tokens": 0,
}
"""What OpenAI counts apart of an answer's tokens, and no model of this server has."""


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """What every reply and every chunk of a request says of itself."""

    id: str
    model: str
    service_tier: str = "default"
    fingerprint: str | None = None
    """The same for as long as the same requests get the same answers: model, revision and engine."""
    created: int = field(default_factory=lambda: int(time.time()))


def completion(head: ReplyHead, answer: Answer, *, with_media: bool = False) -> bytes:
    """A `chat.completion` object as JSON; `with_media` adds what became of the request's media."""
    media = {"media_info": media_info(answer.media)} if with_media else {}
    return orjson.dumps(
        {
            "id": head.id,
            "object": "chat.completion",
            "created": head.created,
            "model": head.model,
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []},
                    "logprobs": logprobs_object(choice.logprobs),
                    "finish_reason": choice.reason.value,
                }
                for index, choice in enumerate(answer.choices)
            ],
            "usage": usage_object(answer.usage, answer.media),
            "service_tier": head.service_tier,
            "system_fingerprint": head.fingerprint,
            **media,
        }
    )


def usage_object(usage: Usage, media: Sequence[MediaFact] = ()) -> dict[str, object]:
    """Usage as the wire has it; a page of a document is a picture there."""
    clips = sum(fact.tokens for fact in media if fact.kind == "video")
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "audio_tokens": 0,
            "image_tokens": sum(fact.tokens for fact in media) - clips,
            "video_tokens": clips,
        },
        "completion_tokens_details": NONE_OF_THESE,
    }


class ChunkWriter:
    """Writes `chat.completion.chunk` frames. All that is equal in every chunk is composed once, not per token."""

    def __init__(
        self, head: ReplyHead, n: int, *, include_usage: bool, media: Sequence[MediaFact] = (), with_media: bool = False
    ) -> None:
        """`media` counts in the usage; `with_media` has the first chunk tell what became of it."""
        self.id = head.id
        self._media = media
        self._with_media = with_media
        start = orjson.dumps(
            {
                "id": head.id,
                "object": "chat.completion.chunk",
                "created": head.created,
                "model": head.model,
                "service_tier": head.service_tier,
                "system_fingerprint": head.fingerprint,
            }
        )[:-1]
        self._include_usage = include_usage
        tail = b'],"usage":null}' if include_usage else b"]}"
        self._starts = [start + b',"choices":[{"index":%d,"delta":' % index for index in range(n)]
        self._tail = tail
        self._content_tail = b'},"logprobs":null,"finish_reason":null}' + tail
        self._finish_tail = b'"}' + tail
        self._usage_start = start + b',"choices":[],"usage":'

    def opening(self) -> bytes:
        """The role of every choice, in index order, once; the first of these chunks tells about media if asked to."""
        chunks = [
            start + b'{"role":"assistant","content":"","refusal":null' + self._content_tail for start in self._starts
        ]
        if self._with_media:
            chunks[0] = chunks[0][:-1] + b',"media_info":' + orjson.dumps(media_info(self._media)) + b"}"
        return b"".join(sse.frame(chunk) for chunk in chunks)

    def write(self, event: Event) -> bytes:
        """The frame of one event; empty where the wire has nothing to say."""
        match event:
            case TextDelta(index, text, logprobs) if logprobs:
                told = b'},"logprobs":' + orjson.dumps(logprobs_object(logprobs)) + b',"finish_reason":null}'
                return sse.frame(self._starts[index] + b'{"content":' + orjson.dumps(text) + told + self._tail)
            case TextDelta(index, text):
                return sse.frame(self._starts[index] + b'{"content":' + orjson.dumps(text) + self._content_tail)
            case Finished(index, reason):
                body = b'{},"logprobs":null,"finish_reason":"' + reason.value.encode()
                return sse.frame(self._starts[index] + body + self._finish_tail)
            case Usage() if self._include_usage:
                return sse.frame(self._usage_start + orjson.dumps(usage_object(event, self._media)) + b"}")
            case _:
                return b""

    def failed(self, error: ApiError) -> bytes:
        """An error object in a frame of its own, and the end."""
        return sse.error_frame(error) + sse.DONE

    def close(self) -> bytes:
        """OpenAI's mark for the end of a stream."""
        return sse.DONE
