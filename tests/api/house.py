"""A whole server on loopback, with a scripted engine in the model's place; and what speaks to it."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import uvicorn
from PIL import Image
from tokenizers import Tokenizer

from server.app import create_app
from server.core import GenerationRequest
from server.engine.scripted import Script, ScriptedEngine
from server.engine.setup import EngineSetup
from server.routes.http11 import bounded_http
from server.services import Services
from server.settings import Settings
from tests.model import FOLDER, MODEL, NAME
from tests.waiting import eventually

MOST_CONNECTIONS = 1000
CHAT = "/v1/chat/completions"
TOKENIZER = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@dataclass
class House:
    """A running server, seen from both sides."""

    port: int
    engine: ScriptedEngine
    services: Services
    http: httpx.Client
    failures: list[tuple[str, str]] = field(default_factory=list)
    """Titles and hints that the process around the app was told of."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def at_rest(self) -> bool:
        """Whether nobody is in the house, nor in the engine."""
        return self.services.gate.inside == 0 and self.engine.running == 0

    @property
    def last_request(self) -> GenerationRequest:
        """What the engine was asked last."""
        return self.engine.requests[-1]

    @property
    def last_prompt(self) -> str:
        """The last prompt as the model would read it, control tokens spelt out."""
        return str(TOKENIZER.decode(self.last_request.prompt.token_ids, skip_special_tokens=False))

    @contextmanager
    def visited(self) -> Iterator[House]:
        """The same server for one test, by a client whose connections end with it."""
        with _client(self.port) as http:
            yield replace(self, http=http)

    @contextmanager
    def unharmed(self) -> Iterator[House]:
        """The same for one test, after which a good request is still answered."""
        with self.visited() as house:
            yield house
            assert house.ask().status_code == 200

    def post(self, body: Mapping[str, Any], **options: Any) -> httpx.Response:
        return self.http.post(CHAT, json=body, **options)

    def ask(self, content: Any = "Hello", **more: Any) -> httpx.Response:
        """One user message, and whatever else the body shall hold."""
        return self.post(body(content, **more))

    def raw(self, head: Sequence[str], content: bytes = b"") -> socket.socket:
        """A request written by hand: the socket it went into."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        lines = "".join(f"{line}\r\n" for line in (*head, "Host: localhost"))
        connection.sendall(lines.encode() + b"\r\n" + content)
        return connection

    def raw_chat(self, request: Mapping[str, Any]) -> socket.socket:
        """A chat request written by hand: the socket its answer will come from."""
        content = json.dumps(request).encode()
        return self.raw((f"POST {CHAT} HTTP/1.1", f"Content-Length: {len(content)}"), content)


def body(content: Any = "Hello", **more: Any) -> dict[str, Any]:
    """A chat body with one user message."""
    return {"model": NAME, "messages": [{"role": "user", "content": content}], **more}


class Events:
    """What the app tells the process around it, kept."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []

    def ready(self, services: Services) -> None: ...

    def failed(self, title: str, hint: str) -> None:
        self.failures.append((title, hint))


@contextmanager
def open_house(script: Script | None = None, *, up: bool = True, **settings: Any) -> Iterator[House]:
    """A server with a thread of its own; with `up`, from when it takes requests."""
    engine, events = ScriptedEngine(script), Events()
    app = create_app(
        Settings(**{"model": MODEL, "served_model_name": [NAME], **settings}),
        set_up_engine=lambda folder, family: EngineSetup(lambda: engine, family.max_pixels),
        events=events,
    )
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded_http(app.state.services, MOST_CONNECTIONS),
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    listeners = [listener]
    if "metrics_port" in settings:
        listeners.append(socket.create_server(("127.0.0.1", settings["metrics_port"])))
    ends: list[BaseException | None] = []
    thread = threading.Thread(target=_run, args=(server, listeners, ends), name="house")
    thread.start()
    port = listener.getsockname()[1]
    try:
        with _client(port) as http:
            house = House(port, engine, app.state.services, http, events.failures)
            assert eventually(lambda: server.started)
            if up:
                assert eventually(lambda: house.services.not_ready_because() is None, 60)  # the first imports torch
                engine.requests.clear()  # the warm-up's
            yield house
    finally:
        server.should_exit = True
        thread.join(10)
        for listener in listeners:
            listener.close()
        assert not thread.is_alive()
        assert ends == [None]
        engine.requests.clear()  # and with them their pictures


def _run(server: uvicorn.Server, listeners: list[socket.socket], ends: list[BaseException | None]) -> None:
    """Run a server to its end, and note what that was."""
    try:
        server.run(listeners)
    except BaseException as error:
        ends.append(error)
        raise
    ends.append(None)


def _client(port: int) -> httpx.Client:
    # Without certificates, which take longer to read than most tests.
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, verify=False)  # noqa: S501


# ---- Frames -----------------------------------------------------------------------------------------


def frames(stream: bytes) -> list[str]:
    """The payloads of a whole stream of server-sent events, which must be nothing but `data:` frames."""
    assert stream.endswith(b"\n\n")
    payloads = []
    for frame in stream[:-2].split(b"\n\n"):
        assert frame.startswith(b"data: ")
        assert b"\n" not in frame
        assert b"\r" not in frame
        payloads.append(frame.removeprefix(b"data: ").decode())
    return payloads


def chunks(stream: bytes) -> list[dict[str, Any]]:
    """The objects of a whole stream, which must end with exactly one `[DONE]`."""
    *payloads, last = frames(stream)
    assert last == "[DONE]"
    assert "[DONE]" not in payloads
    return [json.loads(payload) for payload in payloads]


# ---- Errors -----------------------------------------------------------------------------------------


def error_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """The error object of a reply, which must be OpenAI's in every respect."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    content = response.json()
    assert list(content) == ["error"]
    error: dict[str, Any] = content["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["type"], str)
    assert error["param"] is None or isinstance(error["param"], str)
    assert error["code"] is None or isinstance(error["code"], str)
    return error


# ---- Pictures ---------------------------------------------------------------------------------------

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
Colour = tuple[int, int, int]


def png(image: Image.Image) -> bytes:
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def plain(colour: Colour, width: int = 56, height: int = 56) -> bytes:
    """A PNG of one colour. Sides that are multiples of 28 go through unchanged, with 28 x 28 pixels a token."""
    return png(Image.new("RGB", (width, height), colour))


def quarters(*colours: Colour) -> bytes:
    """A PNG of 56x56 pixels: a colour for each quarter, row by row, which is a token each."""
    image = Image.new("RGB", (56, 56))
    for index, colour in enumerate(colours):
        image.paste(colour, (index % 2 * 28, index // 2 * 28, index % 2 * 28 + 28, index // 2 * 28 + 28))
    return png(image)


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def image_url(content: bytes | str, **more: Any) -> dict[str, Any]:
    """A content part, as OpenAI's clients write it."""
    url = content if isinstance(content, str) else data_url(content)
    return {"type": "image_url", "image_url": {"url": url, **more}}
