"""Clients that ask about pictures all the time, never try twice, and look closely at what they get."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import httpx
import pybase64
from PIL import Image

from server.engine.scripted import Script
from tests.drills.fronts import Front
from tests.drills.replicas import MODEL

PATH: Final = "/v1/chat/completions"
TEXT: Final = "".join(Script().words)
"""What the scripted engine answers to everything."""
WITHIN_S: Final = 60.0
SCAN: Final = (2000, 1500)
"""Pixels of a picture of 2 MB: of noise, which no codec makes small."""
THUMBNAIL: Final = (640, 480)
PIXELS: Final = 200_704
"""To which the server reduces a picture: 256 tokens, so that it fits into the scripted engine's context."""


@dataclass(slots=True)
class Reply:
    """How one request ended."""

    front: str
    streamed: bool
    begun: bool = False
    """Whether a 200 had come: from there on nobody can send the request again."""
    failure: str = ""
    """What was wrong with it; empty where all was well."""
    seconds: float = 0.0


@dataclass
class Load:
    """What all clients have seen so far."""

    clients: int
    pause_s: float
    """Between two requests of a client; may be changed at any time."""
    replies: list[Reply] = field(default_factory=list)
    under_way: int = 0

    def of(self, front: Front) -> list[Reply]:
        """What came through one balancer."""
        return [reply for reply in self.replies if reply.front == front.name]


class Pictures:
    """Any number of JPEG files of the same size, no two with the same bytes."""

    def __init__(self, size: tuple[int, int]) -> None:
        file = io.BytesIO()
        Image.effect_noise(size, 90).convert("RGB").save(file, "JPEG", quality=82)
        self._file = file.getvalue()

    def numbered(self, number: int) -> bytes:
        """The picture with a comment of its own, behind the marker that begins every JPEG file."""
        comment = b"%020d" % number
        return self._file[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + self._file[2:]


def question(picture: bytes, *, stream: bool) -> bytes:
    """The body of a request about a picture."""
    url = "data:image/jpeg;base64," + pybase64.b64encode(picture).decode()
    part = {"type": "image_url", "image_url": {"url": url}, "max_pixels": PIXELS}
    text = {"type": "text", "text": "What is in this picture?"}
    return json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": [part, text]}], "stream": stream}
    ).encode()


def key_of(picture: bytes) -> dict[str, str]:
    """The header that sends requests about the same picture to the same replica."""
    return {"x-image-hash": sha256(picture).hexdigest()}


@contextlib.contextmanager
def load(fronts: Sequence[Front], clients: int, pause_s: float) -> Iterator[Load]:
    """Ask about distinct pictures of 2 MB, every second one streamed, until the block ends.

    `clients` of them go through each balancer; each takes a pause before its next request.
    """
    seen, stop = Load(clients * len(fronts), pause_s), threading.Event()
    crew = threading.Thread(target=lambda: asyncio.run(_all(fronts, clients, seen, stop)), name="clients")
    crew.start()
    try:
        yield seen
    finally:
        stop.set()
        crew.join(WITHIN_S + 10)


async def _all(fronts: Sequence[Front], clients: int, seen: Load, stop: threading.Event) -> None:
    pictures, numbers = Pictures(SCAN), itertools.count()

    async def one(front: Front) -> None:
        async with _client(front) as client:
            while not stop.is_set():
                number = next(numbers)
                picture = pictures.numbered(number)
                seen.under_way += 1
                seen.replies.append(await ask(client, front, picture, {}, stream=number % 2 == 1))
                seen.under_way -= 1
                await asyncio.sleep(seen.pause_s)

    await asyncio.gather(*(one(front) for front in fronts for _ in range(clients)))


def _client(front: Front) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=front.address, timeout=WITHIN_S, trust_env=False)


async def ask(
    client: httpx.AsyncClient, front: Front, picture: bytes, headers: Mapping[str, str], *, stream: bool
) -> Reply:
    """Send one request, once, and judge its reply."""
    reply, began = Reply(front.name, stream), time.perf_counter()
    body = question(picture, stream=stream)
    try:
        async with client.stream(
            "POST", PATH, content=body, headers={"content-type": "application/json", **headers}
        ) as response:
            reply.begun = response.status_code == 200
            content = await response.aread()
        if response.status_code == 200:
            reply.failure = _fault_of_stream(content) if stream else _fault_of_answer(content)
        else:
            reply.failure = f"{response.status_code}: {content[:200]!r}"
    except httpx.HTTPError as error:
        reply.failure = f"{type(error).__name__}: {error}"
    reply.seconds = time.perf_counter() - began
    return reply


def ask_in_turn(front: Front, pictures: Sequence[bytes], *, with_key: bool) -> list[Reply]:
    """Ask about one picture after the other."""

    async def work() -> list[Reply]:
        async with _client(front) as client:
            return [
                await ask(client, front, picture, key_of(picture) if with_key else {}, stream=False)
                for picture in pictures
            ]

    return asyncio.run(work())


def _fault_of_answer(content: bytes) -> str:
    choice = json.loads(content)["choices"][0]
    if (choice["message"]["content"], choice["finish_reason"]) != (TEXT, "stop"):
        return f"not the answer: {content[:200]!r}"
    return ""


def _fault_of_stream(content: bytes) -> str:
    frames = [line.removeprefix("data: ") for line in content.decode().split("\n\n") if line.startswith("data: ")]
    if not frames or frames[-1] != "[DONE]":
        return f"a stream without its end: {content[-200:]!r}"
    chunks = [json.loads(frame) for frame in frames[:-1]]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    if text != TEXT or choices[-1]["finish_reason"] != "stop":
        return f"not the answer: {content[:200]!r}"
    return ""
