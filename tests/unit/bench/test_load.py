"""The bench's client: what it makes of replies, and that it sends what it should when it should."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from clients.bench.load import Answer, Reply, at_once, differing, paced, read

WHOLE = {
    "choices": [{"message": {"role": "assistant", "content": "Two words"}}],
    "usage": {"prompt_tokens": 11, "completion_tokens": 2},
}
CHUNKS = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}}], "usage": None},
    {"choices": [{"delta": {"content": "Two"}}], "usage": None},
    {"choices": [{"delta": {"content": " words"}}], "usage": None},
    {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": None},
    {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 2}},
]
SAID = Answer(200, 11, 2, "Two words")


def stream() -> bytes:
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in CHUNKS]
    return "".join([*events, "data: [DONE]\n\n"]).encode()


@pytest.mark.parametrize("body", [json.dumps(WHOLE).encode(), stream()], ids=["whole", "streamed"])
def test_a_reply_says_the_same_whole_and_streamed(body: bytes) -> None:
    assert read(Reply(status=200, body=bytearray(body))) == SAID


def test_an_error_is_kept_as_it_came() -> None:
    assert read(Reply(status=429, body=bytearray(b"full"))) == Answer(429, 0, 0, "full")


def test_answers_are_compared_one_by_one() -> None:
    assert differing([SAID, SAID], [SAID, Answer(200, 12, 2, "Two words")]) == 1


# ---- Against a server


class Server:
    """Answers every request on a connection with the same reply, and remembers how many were under way at most."""

    def __init__(self) -> None:
        self.address = ""
        self.reply = json.dumps(WHOLE).encode()
        self.delay_s = 0.02
        self.hang_up = False
        self.most = self.inside = self.connections = 0

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                self.inside += 1
                self.most = max(self.most, self.inside)
                await asyncio.sleep(self.delay_s)
                self.inside -= 1
                if self.hang_up:
                    break
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(self.reply) + self.reply)
        writer.close()


@pytest.fixture
def server() -> Iterator[Server]:
    served, up, loop = Server(), threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        listener = await asyncio.start_server(served.talk, "127.0.0.1", 0)
        served.address = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        up.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        listener.close()

    running = loop.create_task(serve())
    thread = threading.Thread(target=loop.run_until_complete, args=(running,))
    thread.start()
    up.wait(5)
    yield served
    loop.call_soon_threadsafe(running.cancel)
    thread.join(5)
    loop.close()


REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}"


def test_so_many_requests_are_under_way_and_connections_are_kept(server: Server) -> None:
    done = at_once(server.address, [REQUEST] * 12, concurrency=3)
    assert done.answers == (SAID,) * 12
    assert (server.most, server.connections) == (3, 3)
    assert done.seconds >= 4 * server.delay_s
    assert all(server.delay_s <= reply.complete <= done.seconds for reply in done.replies)


def test_paced_requests_do_not_wait_for_each_other(server: Server) -> None:
    server.delay_s = 1.0
    done = paced(server.address, [REQUEST] * 5, per_second=50)
    assert done.answers == (SAID,) * 5
    assert server.most == 5
    assert done.seconds < 4


def test_the_first_text_of_a_stream_is_timed(server: Server) -> None:
    server.reply = stream()
    reply = at_once(server.address, [REQUEST], concurrency=1).replies[0]
    assert server.delay_s <= reply.first <= reply.complete


def test_a_server_that_hangs_up_is_an_error(server: Server) -> None:
    server.hang_up = True
    with pytest.raises(ConnectionError):
        at_once(server.address, [REQUEST], concurrency=1)
