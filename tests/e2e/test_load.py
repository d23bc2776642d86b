"""Many requests at once, and clients that go away."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from server.demo.pictures import Sample, make_sample
from tests.e2e.asking import ENDLESS, PATH, Client
from tests.e2e.marking import Miss, content, require
from tests.serving import Server

pytestmark = pytest.mark.e2e

SEED = "load/1"
FREED_WITHIN_S = 2.0
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
STEPS = "vllm:iteration_tokens_total_count"


@pytest.fixture(autouse=True)
def _idle(server: Server) -> None:
    """Every test begins with nothing under way."""
    settle(server, 5)


def settle(server: Server, within_s: float) -> float:
    """Seconds until the engine has nothing to do and nobody is in the house."""
    started = time.monotonic()
    server.await_that(
        lambda: not any(server.metric(name) for name in (RUNNING, WAITING, "ain_requests_inside")),
        "idle",
        within_s,
        every_s=0.05,
    )
    return time.monotonic() - started


def test_thirty_two_mixed_requests_at_once_are_all_answered(server: Server, client: Client) -> None:
    """Pictures and words, streamed and not."""
    rng = random.Random(SEED)
    samples = [make_sample(rng, rng.choice(("shapes", "shapes", "digits", "pair", "talk"))) for _ in range(32)]

    def ask(job: tuple[int, Sample]) -> Miss | None:
        number, sample = job
        said = client.ask(content(sample), stream=number % 2 == 0, max_tokens=80).text
        return None if said == sample.answer else Miss(number, sample.prompt, sample.answer, said)

    with ThreadPoolExecutor(32) as pool:
        misses = [miss for miss in pool.map(ask, enumerate(samples)) if miss]
    require(0.9, misses, len(samples), SEED)


def test_requests_run_side_by_side_in_one_batch(server: Server, client: Client) -> None:
    """One after the other, eight answers of 400 tokens would take a step of the engine for each of 3,200 tokens.

    Counted by the engine: a poller on a busy machine may sleep through the whole of it.
    """
    before = server.metric(STEPS)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(client.ask, "Count to twenty.", max_tokens=400, **ENDLESS) for _ in range(8)]
        tokens = [answer.result().completion_tokens for answer in asked]
    assert tokens == [400] * 8
    settle(server, 5)
    steps = server.metric(STEPS) - before
    assert 400 <= steps <= sum(tokens) / 2, "the requests did not run together"


# ---- Clients that go away ---------------------------------------------------------------------------


def send(server: Server, body: dict[str, Any]) -> socket.socket:
    """Send a request over a bare socket and return that; whoever holds it may vanish at any moment."""
    where = urlsplit(server.address)
    connection = socket.create_connection((str(where.hostname), int(where.port or 0)), timeout=30)
    payload = json.dumps(body).encode()
    head = f"POST {PATH} HTTP/1.1\r\nhost: {where.netloc}\r\ncontent-type: application/json\r\n"
    connection.sendall(f"{head}content-length: {len(payload)}\r\n\r\n".encode() + payload)
    return connection


def await_text(connection: socket.socket) -> None:
    """Read until the first words of the answer have come."""
    received = b""
    while received.count(b'"content":"') < 3:
        received += connection.recv(65536)


def await_running(server: Server) -> None:
    server.await_that(lambda: server.metric(RUNNING) + server.metric(WAITING) > 0, "running", 10, every_s=0.01)


def vanish_in_mid_stream(server: Server, body: dict[str, Any]) -> None:
    with contextlib.closing(send(server, {**body, "stream": True})) as connection:
        await_text(connection)
        await_running(server)


def vanish_before_a_whole_answer(server: Server, body: dict[str, Any]) -> None:
    with contextlib.closing(send(server, body)):
        await_running(server)


def vanish_at_once(server: Server, body: dict[str, Any]) -> None:
    send(server, {**body, "stream": True}).close()


def vanish_rudely(server: Server, body: dict[str, Any]) -> None:
    """A reset instead of a farewell, as from a process that was killed with unread bytes."""
    with contextlib.closing(send(server, {**body, "stream": True})) as connection:
        await_text(connection)
        await_running(server)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


WAYS: list[Callable[[Server, dict[str, Any]], None]] = [
    vanish_in_mid_stream,
    vanish_before_a_whole_answer,
    vanish_at_once,
    vanish_rudely,
]


@pytest.mark.parametrize("vanish", WAYS, ids=lambda vanish: vanish.__name__)
def test_a_client_that_goes_away_frees_its_slot(
    server: Server, client: Client, vanish: Callable[[Server, dict[str, Any]], None]
) -> None:
    """Left alone, this answer would go on for 3,000 tokens."""
    vanish(server, client.body("Count to twenty.", max_tokens=3000, **{**ENDLESS, "n": 4}))
    settle(server, FREED_WITHIN_S)
    tokens = server.metric("vllm:generation_tokens_total")
    time.sleep(0.5)
    assert server.metric("vllm:generation_tokens_total") == tokens, "the engine still works for nobody"
    assert client.ask("Hello", max_tokens=8).text


def test_a_slow_reader_gets_all_of_it(server: Server, client: Client) -> None:
    """Deltas that come while nobody reads are merged, never lost."""
    body = client.body("Count to twenty.", max_tokens=150, **ENDLESS)
    expected = client.ask("Count to twenty.", max_tokens=150, **ENDLESS).text
    with client.http.stream("POST", PATH, json={**body, "stream": True}) as reply:
        said = ""
        for number, line in enumerate(reply.iter_lines()):
            if number == 4:
                time.sleep(1.5)
            if line.startswith("data: {"):
                said += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
    assert said == expected
