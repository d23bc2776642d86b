"""The server under attack: speaks to it in every way, and tells whether it is still well."""

from __future__ import annotations

import base64
import contextlib
import http.client
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

import httpx
import psutil
from PIL import Image

from clients.bench.peers import free_port
from tests.e2e.asking import PATH, data_url, encoded
from tests.hostile.case import Answer, Body, said, shown
from tests.hostile.internet import Internet
from tests.hostile.launcher import INTERNET
from tests.hostile.packing import MIB
from tests.model import MODEL, NAME
from tests.serving import Server
from tests.waiting import slowness

WELL_WITHIN_S: Final = 2.0
"""After any case a text and a picture are answered in this time, or in as many times more as the machine is slow."""
TRIES: Final = 3
FETCH_TIMEOUT_S: Final = 2.0
BODY_TIMEOUT_S: Final = 5.0
DECODE_TIMEOUT_S: Final = 6.0
"""Of CPU time, unlike the others, which are longer on a slow machine."""
WARM_UPS: Final = 12
DECODERS: Final = 2
"""Decode workers, so that all of them can be warmed up."""
PATIENCE_S: Final = 90.0
LEAKS: Final = re.compile(
    r"""
    \d+\.\d+\.\d+\.\d+ | \[?[0-9a-f]*::[0-9a-f]* |            # addresses
    /(usr|home|root|tmp|etc|proc|var|opt|work|dev|srv)\b |    # paths
    Traceback | \bobject\ at\ 0x | <class | \w+(Error|Exception)\b | site-packages | \.py\b   # Python
    """,
    re.VERBOSE,
)


@dataclass(frozen=True)
class Memory:
    """Resident bytes of the server's processes; what they share is counted for each.

    Decode workers stand apart: they are ended when they take too long, and what one gave back that way must not hide
    what another process has kept.
    """

    lasting: int
    workers: int

    def __str__(self) -> str:
        return f"{self.lasting / MIB:.0f} MiB and {self.workers / MIB:.0f} MiB of workers"

    def growth_since(self, before: Memory) -> int:
        """What has been added to each of the two; what has been given back counts for nothing."""
        return max(0, self.lasting - before.lasting) + max(0, self.workers - before.workers)


@dataclass
class House:
    """A running server, the internet that it sees, and what it was like before anything happened."""

    server: Server
    internet: Internet
    http: httpx.Client
    engine: dict[int, float] = field(default_factory=dict)
    """The engine's processes: id and time of creation."""
    memory: Memory = field(default_factory=lambda: Memory(0, 0))
    """After the first of everything."""
    lasting: set[int] = field(default_factory=set)
    """The processes that no hostile file can end: all but the decode workers."""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def place(self) -> tuple[str, int]:
        """Address and port."""
        url = httpx.URL(self.server.address)
        return url.host, int(url.port or 80)

    @contextlib.contextmanager
    def visited(self) -> Iterator[House]:
        """The same server for one test, by a client whose connections end with it."""
        with client_of(self.server.address, self.http.headers) as http:
            yield replace(self, http=http)

    # ---- Speaking

    def chat(self, body: Body, headers: Mapping[str, str] | None = None) -> Answer:
        """POST /v1/chat/completions."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", PATH, content, {"content-type": "application/json", **(headers or {})})

    def request(
        self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | Iterable[Any] = ()
    ) -> Answer:
        """Any request in good HTTP."""
        started = time.monotonic()
        reply = self.http.request(method, path, content=content, headers=headers)  # type: ignore[arg-type]
        return Answer(reply.status_code, reply.content, time.monotonic() - started)

    def raw(self, pieces: bytes | Iterable[bytes], *, pause_s: float = 0.0) -> Answer:
        """Send bytes as they are and read one reply; stops sending once the server has answered or hung up."""
        started = time.monotonic()
        with socket.create_connection(self.place, timeout=PATIENCE_S) as connection:
            for piece in [pieces] if isinstance(pieces, bytes) else pieces:
                try:
                    connection.sendall(piece)
                except OSError:
                    break
                if pause_s and _readable(connection, pause_s):
                    break
            status, content = _reply(connection)
        return Answer(status, content, time.monotonic() - started)

    # ---- How it is

    def settle(self) -> None:
        """Note what must not change: the engine's processes, and memory after the largest of everything allowed.

        Allocators keep some of what a large picture took, up to a bound: what grows beyond that is kept for ever.
        """
        large = base64.b64encode(encoded(Image.new("1", (10_000, 10_000)), "PNG") + bytes(15 * MIB)).decode()
        plain = [data_url(encoded(Image.new("RGB", (448, 448), (n, 0, 0)), "PNG"), "image/png") for n in range(60)]
        largest = [
            said("word " * 3900, max_tokens=1),
            # The engine, too, keeps memory for the most pictures and the longest clip that it has looked at.
            said([{"type": "image_url", "image_url": {"url": url}} for url in plain[:12]], max_tokens=1),
            said([{"type": "video", "video": plain, "resized_height": 224, "resized_width": 224}], max_tokens=1),
            json.dumps(said("Hello")).encode() + b" " * (60 * MIB),
            *(shown(f"data:image/png;base64,{large}", min_pixels=3136 + number) for number in range(DECODERS)),
        ]
        with ThreadPoolExecutor(len(largest)) as pool:
            for answer in pool.map(self.chat, largest * 2):
                assert answer.status == 200, answer.content
        for _ in range(WARM_UPS):
            self.ask_text()
            self.ask_picture()
        self.engine = self.engine_processes()
        assert len(self.engine) > 1, "the engine's processes are not found"
        self.lasting = {process.pid for process in self.server.family()} - self._workers()
        self.memory = self.resident()

    def engine_processes(self) -> dict[int, float]:
        """The server's own process and the engine's; decode workers come and go."""
        found = [
            psutil.Process(self.server.process.pid),
            *self.server.named("EngineCore"),
            *self.server.named("VLLM::"),
        ]
        return {process.pid: process.create_time() for process in found}

    def _workers(self) -> set[int]:
        """The decode workers: what the fork server has forked and what has not become something else since."""
        forked = self.server.named("multiprocessing.forkserver")
        servers = {process.pid for process in forked}
        return {process.pid for process in forked if process.ppid() in servers}

    def require_same_engine(self) -> None:
        """All of the processes that were there at the beginning still run."""
        for pid, created in self.engine.items():
            process = psutil.Process(pid)
            assert process.create_time() == created, "a process of the engine is another"
            assert process.status() != psutil.STATUS_ZOMBIE, "a process of the engine has ended"

    def resident(self) -> Memory:
        """Memory at this moment."""
        lasting = workers = 0
        for process in self.server.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.pid in self.lasting:
                    lasting += process.memory_info().rss
                else:
                    workers += process.memory_info().rss
        return Memory(lasting, workers)

    def require_up(self) -> None:
        """The server is ready, with the same engine; nobody was called who must not be."""
        ready = self.request("GET", "/health/ready")
        assert ready.status == 200, ready.content
        self.require_same_engine()
        assert not self.internet.forbidden(), "an address was dialled that must not be"
        assert not self.internet.traps.caught, "a forbidden address was reached"

    def require_well(self) -> None:
        """A text and a picture are answered in time, too."""
        for name, ask in (("a text", self.ask_text), ("a picture", self.ask_picture)):
            tries = [ask()]
            while min(tries) > WELL_WITHIN_S and len(tries) < TRIES:
                tries.append(ask())
            assert min(tries) <= WELL_WITHIN_S or min(tries) <= WELL_WITHIN_S * slowness(), f"{name} took {tries} s"
        self.require_up()

    def ask_text(self) -> float:
        answer = self.chat(said(f"Hello {next(self.numbers)}", max_tokens=1))
        assert answer.status == 200, answer.content
        return answer.seconds

    def ask_picture(self) -> float:
        answer = self.chat(shown(data_url(self.fresh_picture(), "image/png"), min_pixels=3136))
        assert answer.status == 200, answer.content
        return answer.seconds

    def fresh_picture(self) -> bytes:
        """A PNG that no cache knows."""
        number = next(self.numbers)
        return encoded(Image.new("RGB", (56, 56), (number % 256, number // 256 % 256, 7)), "PNG")


def require_decent(error: Mapping[str, Any], content: bytes) -> None:
    """An error is in OpenAI's shape, short, and tells nothing of the house."""
    assert set(error) == {"message", "type", "param", "code"}
    assert len(content) < 2048, len(content)
    leak = LEAKS.search(str(error["message"]))
    assert leak is None, f"the message tells {leak and leak[0]!r}: {error['message']}"


def _readable(connection: socket.socket, within_s: float) -> bool:
    connection.settimeout(within_s)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(PATIENCE_S)
    return True


def _reply(connection: socket.socket) -> tuple[int, bytes]:
    reply = http.client.HTTPResponse(connection)
    try:
        reply.begin()
        return reply.status, reply.read()
    except (OSError, http.client.HTTPException):
        return 0, b""
    finally:
        reply.close()


# ---- Starting ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_house(internet: Internet, *flags: str, key: str = "") -> Iterator[House]:
    """A server on that internet, ready; at the end of the block all of it is killed. `key` goes with every request."""
    port = free_port()
    log = internet.folder / f"server-{port}.log"
    command = [sys.executable, "-m", "tests.hostile.launcher", "--port", str(port), "--served-model-name", NAME]
    command += ["--log-file", str(log.with_suffix(".engine.log")), "--model", MODEL, *flags]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIN_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**kept, INTERNET: str(internet.describe())},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", NAME, process, log)
    try:
        server.await_ready()
        headers = {"authorization": f"Bearer {key}"} if key else {}
        with client_of(server.address, headers) as client:
            yield House(server, internet, client)
    finally:
        server.kill()


def client_of(address: str, headers: Mapping[str, str]) -> httpx.Client:
    # Without certificates, which take longer to read than most cases.
    return httpx.Client(base_url=address, timeout=PATIENCE_S, trust_env=False, verify=False, headers=headers)  # noqa: S501


def limits() -> tuple[str, ...]:
    """Flags that make deadlines short, so that running into one takes seconds."""
    times = slowness()
    return (
        "--decode-workers",
        str(DECODERS),
        "--decode-timeout-s",
        f"{DECODE_TIMEOUT_S:g}",
        "--fetch-timeout-s",
        f"{FETCH_TIMEOUT_S * times:.1f}",
        "--body-timeout-s",
        f"{BODY_TIMEOUT_S * times:.1f}",
    )
