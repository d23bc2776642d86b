"""A stream of server-sent events: how it ends, whatever happens, and that nothing outlives it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from starlette.types import Message

from server.admission.deadline import Deadline
from server.admission.gate import Gate
from server.admission.queue import AdmissionRequest
from server.core import Event, Finished, FinishReason, TextDelta, Usage
from server.errors import EngineDied
from server.inference import EventStream
from server.openai import sse
from server.openai.chat.reply import ChunkWriter, ReplyHead
from server.routes import streaming
from server.routes.streaming import EventStreamResponse

PLAYED: tuple[Event, ...] = (TextDelta(0, "a"), Finished(0, FinishReason.STOP), Usage(1, 1))
NEVER = object()
"""In a script: from here on nothing comes."""


class Client:
    """Sees what is sent, and may go away or read nothing."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.reads = asyncio.Event()
        self.reads.set()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            await self.reads.wait()

    @property
    def written(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def is_complete(self) -> bool:
        """Whether the reply has been ended in an orderly way."""
        return self.sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}

    @property
    def payloads(self) -> list[Any]:
        """What the frames hold; comments are skipped, as every client does."""
        frames = self.written.removesuffix(b"\n\n").split(b"\n\n")
        data = [frame.removeprefix(b"data: ") for frame in frames if not frame.startswith(b":")]
        return [payload.decode() if payload == b"[DONE]" else orjson.loads(payload) for payload in data]


class Stream:
    """A response, its client, and what it holds."""

    def __init__(self, *script: object, seconds: float = 60.0, ping_s: float = 60.0) -> None:
        self.script = script
        self.deadline, self.ping_s = Deadline(seconds), ping_s
        self.gate, self.client = Gate(), Client()
        self.engine_works = False
        self.answering: asyncio.Task[None] | None = None

    async def events(self) -> AsyncGenerator[Event, None]:
        self.engine_works = True
        try:
            for event in self.script:
                if event is NEVER:
                    await asyncio.sleep(3600)
                if isinstance(event, float):
                    await asyncio.sleep(event)
                elif isinstance(event, Exception):
                    raise event
                else:
                    yield event  # type: ignore[misc]
        finally:
            self.engine_works = False

    async def begin(self) -> asyncio.Task[None]:
        ticket, events = await self.gate.enter(AdmissionRequest("one")), self.events()
        stream = EventStream(await anext(events), events, ticket)
        writer = ChunkWriter(ReplyHead("chatcmpl-1", "ain"), 1, include_usage=False)
        response = EventStreamResponse(stream, writer, self.deadline, self.ping_s, {"x-more": "yes"})
        scope = {"type": "http"}
        self.answering = asyncio.create_task(response(scope, self.client.receive, self.client.send))
        return self.answering

    @property
    def is_over(self) -> bool:
        """Whether it has given back all that it held."""
        return not self.engine_works and (self.gate.inside, self.gate.running) == (0, 0)


@asynccontextmanager
async def begun(*script: object, **options: float) -> AsyncIterator[tuple[Stream, asyncio.Task[None]]]:
    """A stream that is being written; after it nothing may be left, not even a task."""
    before = asyncio.all_tasks()
    stream = Stream(*script, **options)
    answering = await stream.begin()
    async with asyncio.timeout(60):
        yield stream, answering
    assert answering.done()
    assert stream.is_over
    written = len(stream.client.sent)
    await asyncio.sleep(0.03)
    assert len(stream.client.sent) == written
    assert asyncio.all_tasks() == before


async def until_written(stream: Stream, something: bytes) -> None:
    while something not in stream.client.written:  # noqa: ASYNC110  the client has no event for it
        await asyncio.sleep(0.001)


async def test_a_stream_opens_with_the_role_and_ends_with_done() -> None:
    async with begun(*PLAYED) as (stream, answering):
        await answering
    opening, text, finish, done = stream.client.payloads
    assert opening["choices"][0]["delta"]["role"] == "assistant"
    assert text["choices"][0]["delta"] == {"content": "a"}
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert done == "[DONE]"
    assert stream.client.is_complete


async def test_its_head_keeps_proxies_from_gathering_it() -> None:
    async with begun(*PLAYED) as (stream, answering):
        await answering
    head = stream.client.sent[0]
    headers = {name.decode(): value.decode() for name, value in head["headers"]}
    assert (head["type"], head["status"]) == ("http.response.start", 200)
    assert headers["content-type"].startswith("text/event-stream")
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    assert headers["x-more"] == "yes"
    assert "content-length" not in headers


async def test_an_error_in_mid_stream_is_told_and_followed_by_done() -> None:
    async with begun(TextDelta(0, "a"), EngineDied("It died.")) as (stream, answering):
        await answering
    *_, error, done = stream.client.payloads
    assert error == {"error": {"message": "It died.", "type": "server_error", "param": None, "code": "engine_died"}}
    assert done == "[DONE]"
    assert stream.client.is_complete


async def test_an_unforeseen_error_tells_nothing_about_the_house() -> None:
    async with begun(TextDelta(0, "a"), RuntimeError("secret")) as (stream, answering):
        await answering
    *_, error, done = stream.client.payloads
    assert (error["error"]["type"], error["error"]["code"]) == ("server_error", "internal_error")
    assert b"secret" not in stream.client.written
    assert done == "[DONE]"


async def test_a_deadline_in_mid_stream_is_told_and_followed_by_done() -> None:
    async with begun(TextDelta(0, "a"), NEVER, seconds=0.05) as (stream, answering):
        await answering
    *_, error, done = stream.client.payloads
    assert error["error"]["code"] == "deadline_exceeded"
    assert done == "[DONE]"
    assert stream.client.is_complete


async def test_a_client_that_goes_away_is_sent_nothing_more() -> None:
    async with begun(TextDelta(0, "a"), NEVER) as (stream, answering):
        await until_written(stream, b'"a"')
        stream.client.gone.set()
        await answering
    assert b"error" not in stream.client.written
    assert b"[DONE]" not in stream.client.written
    assert not stream.client.is_complete


async def test_a_client_that_goes_away_while_it_does_not_read_holds_nothing() -> None:
    async with begun(*PLAYED) as (stream, answering):
        stream.client.reads.clear()
        await asyncio.sleep(0.01)
        stream.client.gone.set()
        await answering


async def test_a_client_that_goes_away_at_the_very_end_harms_nobody() -> None:
    async with begun(*PLAYED) as (stream, answering):
        stream.client.gone.set()
        await answering


async def test_the_end_of_the_server_is_told_and_followed_by_done() -> None:
    async with begun(TextDelta(0, "a"), NEVER) as (stream, answering):
        await until_written(stream, b'"a"')
        answering.cancel()
        await answering
    *_, error, done = stream.client.payloads
    assert error["error"]["code"] == "draining"
    assert done == "[DONE]"
    assert stream.client.is_complete


async def test_the_end_of_the_server_waits_for_no_client_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "LAST_WORDS_S", 0.05)
    async with begun(*PLAYED) as (stream, answering):
        stream.client.reads.clear()
        await asyncio.sleep(0.01)
        answering.cancel()
        await asyncio.wait_for(answering, 60)


@pytest.mark.parametrize("frames", [0, 1, 2])
async def test_a_connection_that_breaks_ends_the_work(frames: int) -> None:
    stream = Stream(*PLAYED)
    send = stream.client.send

    async def breaks(message: Message) -> None:
        if len(stream.client.sent) > frames:
            raise OSError("broken pipe")
        await send(message)

    stream.client.send = breaks  # type: ignore[method-assign]
    with pytest.raises(OSError, match="broken pipe"):
        await (await stream.begin())
    assert stream.is_over


# ---- Silence


async def test_each_silence_carries_comments() -> None:
    async with begun(TextDelta(0, "a"), 0.2, *PLAYED[1:], ping_s=0.02) as (stream, answering):
        await answering
    assert stream.client.written.count(sse.PING) >= 3
    assert stream.client.payloads[-1] == "[DONE]"
    assert len(stream.client.payloads) == 4


async def test_a_stream_that_flows_carries_none() -> None:
    flow = [one for _ in range(20) for one in (TextDelta(0, "a"), 0.005)]
    async with begun(*flow, *PLAYED[1:], ping_s=1.0) as (stream, answering):
        await answering
    assert sse.PING not in stream.client.written


async def test_comments_do_not_pile_up_before_a_client_that_does_not_read() -> None:
    async with begun(TextDelta(0, "a"), 0.2, *PLAYED[1:], ping_s=0.01) as (stream, answering):
        await until_written(stream, b'"a"')
        stream.client.reads.clear()
        await asyncio.sleep(0.1)
        pings = stream.client.written.count(sse.PING)
        stream.client.reads.set()
        await answering
    assert pings <= 2
