"""A crowd at the door of a server with keys: who has one is to notice nothing.

    make crowd        5,000 connections that send nothing, 2,000 that send a byte a second, 200 with endless trailers

The server keeps 2,000 connections. An honest client asks for a short answer again and again, each time on a connection
of its own, before the crowd comes and while it is there; what counts is the slowest in a hundred, and the server's
memory. The scripted engine answers, so that the door's time is seen and not a model's. The crowd comes from a process
of its own and takes time of the machine for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import httpx
import psutil

from server.admission.keys import new_key
from tests.model import MODEL, NAME
from tests.serving import serve

SILENT: Final = 5000
SLOW: Final = 2000
ENDLESS: Final = 200
MOST_CONNECTIONS: Final = 2000
BACK_AFTER_S: Final = (5.0, 15.0)
"""When those that were cut come again, as long as the crowd is there."""
MEASURED_S: Final = 15.0
MOST_SLOWER: Final = 1.2
MOST_MIB: Final = 200
HEAD: Final = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


# ---- The crowd, in a process of its own


async def crowd(host: str, port: int) -> None:
    """Come, all at once, and stay until told to go."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert hard > SILENT + SLOW + ENDLESS + 100, "too few descriptors for a crowd"
    works = [silent] * SILENT + [slow] * SLOW + [endless] * ENDLESS
    tasks = [asyncio.create_task(work(host, port)) for work in works]
    await asyncio.sleep(3)
    print("here", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def silent(host: str, port: int) -> None:
    with contextlib.suppress(OSError):
        reader, writer = await asyncio.open_connection(host, port)
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()


async def slow(host: str, port: int) -> None:
    """A head, a byte a second, again and again."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            for byte in HEAD * 100:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(1)
        await asyncio.sleep(random.uniform(*BACK_AFTER_S))


async def endless(host: str, port: int) -> None:
    """Trailers, as fast as they go, again and again."""
    while True:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n")
            while True:
                writer.write(b"x: yyyyyyyyyyyyyyyy\r\n" * 100)
                await writer.drain()
                await asyncio.sleep(0.05)
        await asyncio.sleep(random.uniform(*BACK_AFTER_S))


# ---- Who has a key


def ask_for(seconds: float, address: str, key: str) -> list[float]:
    """The times of all answers, in seconds, sorted."""
    content = json.dumps({"model": NAME, "messages": [{"role": "user", "content": "Hello"}]})
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        with httpx.Client(base_url=address, timeout=60, trust_env=False, verify=False) as client:  # noqa: S501
            reply = client.post("/v1/chat/completions", content=content, headers=headers)
        times.append(time.perf_counter() - began)
        assert reply.status_code == 200, reply.text
        time.sleep(0.005)
    return sorted(times)


def main() -> int:
    """Print what an honest client and the memory have felt; the status says whether that is within bounds."""
    key = new_key()
    with tempfile.TemporaryDirectory() as folder:
        keys = Path(folder, "keys")
        keys.write_text(key)
        flags = ("--engine", "scripted", "--api-keys-file", str(keys), "--max-connections", str(MOST_CONNECTIONS))
        with serve("--model", MODEL, "--served-model-name", NAME, *flags) as server:
            ask_for(2, server.address, key)
            before, held = ask_for(MEASURED_S, server.address, key), memory(server.process.pid)
            url = httpx.URL(server.address)
            command = [sys.executable, "-m", "tests.hostile.crowd", url.host, str(url.port)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as others:
                assert others.stdout is not None
                assert others.stdout.readline() == "here\n"
                during = ask_for(MEASURED_S, server.address, key)
                grown = (memory(server.process.pid) - held) / (1 << 20)
                others.communicate("go\n")
            after = ask_for(5, server.address, key)
    p99 = [times[len(times) * 99 // 100] * 1000 for times in (before, during, after)]
    half = [times[len(times) // 2] * 1000 for times in (before, during, after)]
    for name, ninety_nine, median in zip(("before", "with the crowd", "after"), p99, half, strict=True):
        print(f"{name:16} median {median:6.1f} ms  p99 {ninety_nine:6.1f} ms")
    print(f"memory grew by {grown:.0f} MiB")
    return int(p99[1] > MOST_SLOWER * p99[0] or grown > MOST_MIB)


def memory(pid: int) -> int:
    """Resident bytes of the process at the door."""
    return int(psutil.Process(pid).memory_info().rss)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(crowd(sys.argv[1], int(sys.argv[2])))
    else:
        raise SystemExit(main())
