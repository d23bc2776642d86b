"""How long anybody waits while somebody else sends the worst body that there is: `make stalls`.

A server with the scripted engine is asked for `/health/live` every few milliseconds while one body after the other
comes. The longest answer is the longest time that its event loop stood still, and what the machine itself added.
"""

from __future__ import annotations

import base64
import http.client
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any, Final

import httpx

from tests.model import MODEL, NAME
from tests.serving import serve

MIB: Final = 1 << 20
SIZE: Final = 62 * MIB
PAUSE_S: Final = 0.001
MOST_MS: Final = 50.0


def said(content: Any) -> bytes:
    return json.dumps({"model": NAME, "messages": [{"role": "user", "content": content}]}).encode()


def with_field(value: bytes) -> bytes:
    return said("Hello")[:-1] + b',"x":' + value + b"}"


def many(piece: bytes, size: int = SIZE) -> bytes:
    return (piece * (size // len(piece))).rstrip(b",")


def picture(content: bytes) -> bytes:
    url = "data:image/png;base64," + base64.b64encode(content).decode()
    return said([{"type": "image_url", "image_url": {"url": url}}])


BODIES: Final[dict[str, Callable[[], bytes]]] = {
    "nothing": lambda: said("Hello"),
    "lists": lambda: with_field(b"[" + many(b"[],") + b"]"),
    "objects": lambda: with_field(b"[" + many(b"{},") + b"]"),
    "keys": lambda: with_field(b"{" + many(b'"k":1,') + b"}"),
    "the most lists allowed": lambda: with_field(b"[" + many(b"[],", 60_000) + b"]"),
    "the most keys allowed": lambda: with_field(
        b"{" + b",".join(b'"%d":1' % number for number in range(21_000)) + b"}"
    ),
    "the most messages allowed": lambda: json.dumps(
        {"model": NAME, "messages": [{"role": "user", "content": "x"}] * 4096}
    ).encode(),
    "white space": lambda: said("Hello") + many(b" "),
    "a picture": lambda: picture(os.urandom(SIZE // 4 * 3 - 1000)),
    "a picture of 19 MiB": lambda: picture(os.urandom(19 * MIB)),
    "the same with escapes": lambda: picture(os.urandom(19 * MIB)).replace(b"/", b"\\/").replace(b"+", b"\\u002B"),
    "percent signs in place of a picture": lambda: picture(b"")[:-6].removesuffix(b'"') + many(b"%2B") + b'"}}]}]}',
    "the most parts allowed": lambda: said([{"type": "text", "text": "x"}] * 5000),
    "a form of the most schemas": lambda: json.dumps(
        {
            "model": NAME,
            "messages": [{"role": "user", "content": "x"}],
            "guided_json": {"properties": {f"p{number}": {"enum": [1, 2]} for number in range(499)}},
        }
    ).encode(),
    "frames in one URL": lambda: said(
        [{"type": "video_url", "video_url": {"url": "data:video/jpeg;base64," + "AAAA," * (SIZE // 5)}}]
    ),
    "two thousand frames": lambda: said(
        [{"type": "video", "video": ["data:image/png;base64," + base64.b64encode(os.urandom(3000)).decode()] * 2000}]
    ),
    "text": lambda: said("word " * (SIZE // 5)),
    "the most text allowed": lambda: said("word " * (8 * MIB // 5 - 100)),
    "Arabic, escaped": lambda: said("س" * (SIZE // 6)),
    "the most escapes allowed": lambda: said("س" * (8 * MIB // 20 - 100)),
    "a string in an unknown field": lambda: with_field(b'"' + many(b"x") + b'"'),
    "200 KB of digits": lambda: said("1" * 200_000),
    "2 MB of digits": lambda: said("1" * 2_000_000),
    "2 MB of marks": lambda: said("a" + "\u0301" * 1_000_000),
}


def watch(host: str, port: int, longest: Synchronized[float], ended: Event) -> None:
    """Ask again and again, on one connection, and keep the longest answer; in a process that does nothing else."""
    connection = http.client.HTTPConnection(host, port, timeout=60)
    while not ended.wait(PAUSE_S):
        began = time.perf_counter()
        connection.request("GET", "/health/live")
        connection.getresponse().read()
        longest.value = max(longest.value, time.perf_counter() - began)
    connection.close()


@contextmanager
def watched(host: str, port: int) -> Iterator[Synchronized[float]]:
    """The longest answer in seconds, for as long as the block lasts; it may be set back to 0."""
    processes = multiprocessing.get_context("spawn")
    longest, ended = processes.Value("d", 0.0), processes.Event()
    process = processes.Process(target=watch, args=(host, port, longest, ended))
    process.start()
    yield longest
    ended.set()
    process.join()


def main() -> int:
    """Print a row a body; the status says whether all are within the bound."""
    worst = 0.0
    with serve("--model", MODEL, "--served-model-name", NAME, "--engine", "scripted") as server:
        url = httpx.URL(server.address)
        with watched(url.host, url.port or 80) as seen, httpx.Client(timeout=120, trust_env=False) as client:
            time.sleep(2)
            for name, make in BODIES.items():
                content = make()
                time.sleep(0.2)
                seen.value = 0.0
                began = time.perf_counter()
                reply = client.post(
                    f"{server.address}/v1/chat/completions",
                    content=content,
                    headers={"content-type": "application/json"},
                )
                took = time.perf_counter() - began
                longest = seen.value * 1000
                worst = max(worst, longest)
                code = reply.json().get("error", {}).get("code", "")
                size = len(content) / MIB
                print(
                    f"{name:32} {size:6.1f} MiB  {reply.status_code} {code:26} {took:6.2f} s  {longest:6.1f} ms",
                    flush=True,
                )
    print(f"the longest wait is {worst:.1f} ms, of {MOST_MS:g} allowed")
    return int(worst > MOST_MS)


if __name__ == "__main__":
    raise SystemExit(main())
