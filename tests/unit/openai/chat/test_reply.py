"""Events to the wire: frames that are composed by hand equal those that a plain dict would give."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from server.core import Answer, Choice, Finished, FinishReason, MediaFact, Restarted, TextDelta, TokenLogprob, Usage
from server.openai.chat.reply import ChunkWriter, ReplyHead, completion, usage_object
from server.openai.logprobs import logprobs_object

HEAD = ReplyHead("chatcmpl-1", 'org/ain "quoted" نموذج', fingerprint="fp_1", created=1_700_000_000)
LOGPROBS = (TokenLogprob(b"\xd9", -0.5, ((b"a", -0.1),)), TokenLogprob(b"\x85", -1.0))
"""Of a letter in two tokens."""


def expected(index: int, delta: dict[str, str | None], reason: str | None, include_usage: bool) -> bytes:
    """A chunk as a plain dict makes it."""
    chunk: dict[str, Any] = {
        "id": HEAD.id,
        "object": "chat.completion.chunk",
        "created": HEAD.created,
        "model": HEAD.model,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}],
    }
    if include_usage:
        chunk["usage"] = None
    ChatCompletionChunk.model_validate(chunk, strict=True)
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


@given(st.text(), st.integers(0, 3), st.booleans())
def test_a_text_chunk_is_what_a_plain_dict_gives(text: str, index: int, include_usage: bool) -> None:
    written = ChunkWriter(HEAD, 4, include_usage=include_usage).write(TextDelta(index, text))
    assert written == expected(index, {"content": text}, None, include_usage)
    assert written.count(b"\n") == 2


@given(st.text(), st.booleans())
def test_a_chunk_with_logprobs_is_a_text_chunk_that_tells_them(text: str, include_usage: bool) -> None:
    writer = ChunkWriter(HEAD, 1, include_usage=include_usage)
    chunk = orjson.loads(writer.write(TextDelta(0, text, LOGPROBS)).removeprefix(b"data: "))
    ChatCompletionChunk.model_validate(chunk, strict=True)
    assert chunk["choices"][0].pop("logprobs") == logprobs_object(LOGPROBS)
    plain = orjson.loads(writer.write(TextDelta(0, text)).removeprefix(b"data: "))
    assert plain["choices"][0].pop("logprobs") is None
    assert chunk == plain


def test_a_whole_reply_tells_the_logprobs_of_each_choice() -> None:
    answer = Answer((Choice("م", logprobs=LOGPROBS), Choice("b")), Usage(1, 3))
    reply = ChatCompletion.model_validate(orjson.loads(completion(HEAD, answer)), strict=True)
    told = reply.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert b"".join(bytes(token.bytes or ()) for token in told.content).decode() == "م"
    assert reply.choices[1].logprobs is None


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("reason", list(FinishReason))
def test_a_finish_chunk_is_what_a_plain_dict_gives(reason: FinishReason, include_usage: bool) -> None:
    writer = ChunkWriter(HEAD, 2, include_usage=include_usage)
    assert writer.write(Finished(1, reason)) == expected(1, {}, reason.value, include_usage)


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("n", [1, 2, 8])
def test_the_opening_gives_every_choice_its_role_in_order(n: int, include_usage: bool) -> None:
    role = {"role": "assistant", "content": "", "refusal": None}
    opening = ChunkWriter(HEAD, n, include_usage=include_usage).opening()
    assert opening == b"".join(expected(index, role, None, include_usage) for index in range(n))


def test_usage_is_a_chunk_without_choices_when_asked_for_and_nothing_otherwise() -> None:
    usage = Usage(prompt_tokens=10, completion_tokens=5, cached_tokens=3)
    assert ChunkWriter(HEAD, 1, include_usage=False).write(usage) == b""
    written = ChunkWriter(HEAD, 1, include_usage=True).write(usage)
    chunk = orjson.loads(written.removeprefix(b"data: "))
    ChatCompletionChunk.model_validate(chunk, strict=True)
    assert chunk == {
        "id": HEAD.id,
        "object": "chat.completion.chunk",
        "created": HEAD.created,
        "model": HEAD.model,
        "service_tier": "default",
        "system_fingerprint": "fp_1",
        "choices": [],
        "usage": usage_object(usage),
    }


@given(st.lists(st.tuples(st.text(), st.sampled_from(FinishReason)), min_size=1, max_size=3))
def test_a_whole_reply_is_one_that_the_sdk_takes(said: list[tuple[str, FinishReason]]) -> None:
    answer = Answer(tuple(Choice(text, reason) for text, reason in said), Usage(3, 4, 1))
    reply = ChatCompletion.model_validate(orjson.loads(completion(HEAD, answer)), strict=True)
    assert [(choice.message.content, choice.finish_reason) for choice in reply.choices] == said
    assert (reply.id, reply.model, reply.created) == (HEAD.id, HEAD.model, HEAD.created)
    assert reply.usage is not None
    assert reply.usage.total_tokens == 7


def test_an_answer_that_begins_anew_says_nothing_in_a_stream() -> None:
    """It never comes in one: nothing of it can be taken back."""
    assert ChunkWriter(HEAD, 1, include_usage=True).write(Restarted()) == b""


@pytest.mark.parametrize("tier", ["default", "flex"])
def test_a_reply_names_the_tier_that_it_was_served_in(tier: str) -> None:
    head = ReplyHead("chatcmpl-1", "ain", tier)
    reply = ChatCompletion.model_validate(orjson.loads(completion(head, Answer((Choice("a"),), Usage(1, 1)))))
    assert reply.service_tier == tier


# ---- What became of media

FACTS = (
    MediaFact("messages[0].content[0].image", "image", (1920, 1080), (1316, 728), 1222),
    MediaFact('messages[0].content[1]."نموذج"', "page", (2480, 3508), (840, 1176), 1260, page=7),
    MediaFact("messages[1].content[0].video", "video", (720, 405), (504, 280), 1800, frames=20, fps=1.5),
)
INFO = [
    {
        "param": "messages[0].content[0].image",
        "type": "image",
        "original_size": {"width": 1920, "height": 1080},
        "resized_size": {"width": 1316, "height": 728},
        "tokens": 1222,
    },
    {
        "param": 'messages[0].content[1]."نموذج"',
        "type": "page",
        "original_size": {"width": 2480, "height": 3508},
        "resized_size": {"width": 840, "height": 1176},
        "tokens": 1260,
        "page": 7,
    },
    {
        "param": "messages[1].content[0].video",
        "type": "video",
        "original_size": {"width": 720, "height": 405},
        "resized_size": {"width": 504, "height": 280},
        "tokens": 1800,
        "frames": 20,
        "fps": 1.5,
    },
]


@pytest.mark.parametrize(("facts", "info"), [(FACTS, INFO), ((), [])], ids=["some", "none"])
def test_a_reply_tells_what_became_of_media_when_asked_to(facts: tuple[MediaFact, ...], info: list[Any]) -> None:
    answer = Answer((Choice("a"),), Usage(3, 4), facts)
    asked = orjson.loads(completion(HEAD, answer, with_media=True))
    assert asked.pop("media_info") == info
    assert asked == orjson.loads(completion(HEAD, answer))
    ChatCompletion.model_validate(asked | {"media_info": info}, strict=True)


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_the_first_chunk_tells_what_became_of_media_when_asked_to(n: int, include_usage: bool) -> None:
    plain = ChunkWriter(HEAD, n, include_usage=include_usage)
    asked = ChunkWriter(HEAD, n, include_usage=include_usage, media=FACTS, with_media=True)
    first, *others = asked.opening().removesuffix(b"\n\n").split(b"\n\n")
    chunk = orjson.loads(first.removeprefix(b"data: "))
    ChatCompletionChunk.model_validate(chunk, strict=True)
    assert chunk.pop("media_info") == INFO
    frames = plain.opening().removesuffix(b"\n\n").split(b"\n\n")
    assert chunk == orjson.loads(frames[0].removeprefix(b"data: "))
    assert others == frames[1:]
    for event in (TextDelta(0, "a"), Finished(0, FinishReason.STOP)):
        assert asked.write(event) == plain.write(event)


def test_no_media_are_an_empty_list_for_who_asked() -> None:
    opening = ChunkWriter(HEAD, 1, include_usage=False, with_media=True).opening()
    assert orjson.loads(opening.removeprefix(b"data: "))["media_info"] == []


def test_usage_tells_what_of_the_prompt_pictures_and_clips_take() -> None:
    usage = usage_object(Usage(5000, 5, 3), FACTS)
    assert usage["prompt_tokens_details"] == {
        "cached_tokens": 3,
        "audio_tokens": 0,
        "image_tokens": 1222 + 1260,
        "video_tokens": 1800,
    }
    assert usage["total_tokens"] == 5005
