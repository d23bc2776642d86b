"""Asks a running server, with as few words as possible in the tests."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from PIL import Image

from tests.serving import Server

Part = dict[str, Any]
Message = dict[str, Any]
Content = str | Sequence[Part]

PATH: Final = "/v1/chat/completions"

ENDLESS: Final[dict[str, Any]] = {
    "temperature": 0,
    "frequency_penalty": -2,
    "presence_penalty": -2,
    "repetition_penalty": 2,
}
"""Sampling under which the demo model goes round in circles until its limit: what was said becomes ever likelier, and
the end marker, which the prompt holds, less likely."""


@dataclass(frozen=True)
class Reply:
    """A whole answer, streamed or not."""

    texts: tuple[str, ...]
    reasons: tuple[str, ...]
    usage: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The only choice."""
        (text,) = self.texts
        return text

    @property
    def reason(self) -> str:
        """Why the only choice ended."""
        (reason,) = self.reasons
        return reason

    @property
    def prompt_tokens(self) -> int:
        return int(self.usage["prompt_tokens"])

    @property
    def completion_tokens(self) -> int:
        return int(self.usage["completion_tokens"])


class Client:
    """An HTTP client of one server; greedy unless a call says otherwise."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.address, timeout=60)

    def body(self, content: Content | None = None, **more: Any) -> dict[str, Any]:
        """A request with one user message, or with `messages`."""
        if content is not None:
            more["messages"] = [{"role": "user", "content": content}]
        return {"model": self.server.model, "temperature": 0, **more}

    def post(self, body: Mapping[str, Any] | bytes, **headers: str) -> httpx.Response:
        """Send a body as it is."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(PATH, content=content, headers={"content-type": "application/json", **headers})

    def ask(self, content: Content | None = None, *, stream: bool = False, **more: Any) -> Reply:
        """The answer; fails on any other status than 200."""
        body = self.body(content, **more)
        return self._streamed(body) if stream else self._whole(body)

    def _whole(self, body: Mapping[str, Any]) -> Reply:
        reply = self.post(body)
        assert reply.status_code == 200, reply.text
        answer = reply.json()
        choices = sorted(answer["choices"], key=lambda choice: choice["index"])
        return Reply(
            tuple(choice["message"]["content"] for choice in choices),
            tuple(choice["finish_reason"] for choice in choices),
            answer["usage"],
            reply.headers,
        )

    def _streamed(self, body: Mapping[str, Any]) -> Reply:
        texts: dict[int, str] = {}
        reasons: dict[int, str] = {}
        usage: Mapping[str, Any] = {}
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        with self.http.stream("POST", PATH, json=asked) as reply:
            assert reply.status_code == 200, reply.read().decode()
            for chunk in frames(reply):
                usage = chunk.get("usage") or usage
                for choice in chunk["choices"]:
                    index = choice["index"]
                    texts[index] = texts.get(index, "") + choice["delta"].get("content", "")
                    if choice["finish_reason"] is not None:
                        assert index not in reasons, "a choice ended twice"
                        reasons[index] = choice["finish_reason"]
        assert sorted(texts) == sorted(reasons), "a choice did not end"
        order = sorted(texts)
        return Reply(
            tuple(texts[index] for index in order), tuple(reasons[index] for index in order), usage, reply.headers
        )


def frames(reply: httpx.Response) -> Iterator[dict[str, Any]]:
    """The JSON of every `data:` frame; exactly one `[DONE]` must come, as the last."""
    done = False
    for line in reply.iter_lines():
        if line.startswith("data: "):
            assert not done, "a frame after [DONE]"
            done = line == "data: [DONE]"
            if not done:
                yield json.loads(line[6:])
    assert done, "the stream broke off before [DONE]"


# ---- Messages ---------------------------------------------------------------------------------------


def text(words: str) -> Part:
    """A text part."""
    return {"type": "text", "text": words}


def image(picture: Image.Image, **budget: int) -> Part:
    """A picture as OpenAI's clients send it, losslessly."""
    return {"type": "image_url", "image_url": {"url": data_url(encoded(picture, "PNG"), "image/png")}, **budget}


def encoded(picture: Image.Image, form: str, **options: Any) -> bytes:
    """The picture as a file: PNG, JPEG, WEBP or GIF."""
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def data_url(file: bytes, media_type: str) -> str:
    """The file inside a URL."""
    return f"data:{media_type};base64,{base64.b64encode(file).decode()}"
