"""Bad input gets the right status and code, and never harms the next request."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image

from tests.e2e.asking import Client, data_url, encoded, image, text

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Bad:
    """A body and how it is refused."""

    body: bytes | dict[str, Any]
    status: int
    code: str
    param: str | None = None


def asked(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "ain-demo", "messages": [{"role": "user", "content": content}], **more}


def shown(url: Any) -> dict[str, Any]:
    return asked([{"type": "image_url", "image_url": {"url": url}}, text("What is this?")])


URL = "messages[0].content[0].image_url.url"
WHITE = Image.new("RGB", (64, 64), "white")
PNG = encoded(WHITE, "PNG")
HUGE = [image(Image.new("RGB", (448, 448), "white")) for _ in range(16)]

BAD = {
    "not JSON": Bad(b"{nope", 400, "invalid_json"),
    "not UTF-8": Bad(b'{"model":"\xff"}', 400, "invalid_json"),
    "empty": Bad(b"", 400, "invalid_json"),
    "a list": Bad(b"[]", 400, "invalid_type"),
    "no messages": Bad({"model": "ain-demo"}, 400, "missing_required_parameter", "messages"),
    "empty messages": Bad({"model": "ain-demo", "messages": []}, 400, "invalid_value", "messages"),
    "unknown model": Bad(asked("Hello", model="gpt-17"), 404, "model_not_found", "model"),
    "broken base64": Bad(shown("data:image/png;base64,%%%%"), 400, "invalid_base64_image", URL),
    "cut base64": Bad(shown(data_url(PNG, "image/png")[:-3]), 400, "invalid_base64_image", URL),
    "not an image": Bad(shown(data_url(b"plain words", "image/png")), 400, "invalid_image_format", URL),
    "half an image": Bad(shown(data_url(PNG[: len(PNG) // 2], "image/png")), 400, "image_parse_error", URL),
    "empty image": Bad(shown("data:image/png;base64,"), 400, "empty_image_file", URL),
    "half a PDF": Bad(shown(data_url(b"%PDF-1.7 words", "image/png")), 400, "file_parse_error", URL),
    "a local file": Bad(shown("file:///etc/passwd"), 400, "invalid_image_url", URL),
    "a bare number": Bad(asked([{"type": "image_url", "image_url": 5}]), 400, "invalid_type", URL[: -len(".url")]),
    "nobody's address": Bad(shown("http://127.0.0.1:9/x.png"), 400, "invalid_image_url", URL),
    "unknown part": Bad(asked([{"type": "hologram"}]), 400, "invalid_value", "messages[0].content[0].type"),
    "tools": Bad(asked("Hello", tools=[{"type": "function"}]), 400, "unsupported_parameter", "tools"),
    "audio": Bad(asked("Hello", modalities=["audio"]), 400, "unsupported_parameter", "modalities"),
    "hot": Bad(asked("Hello", temperature=3), 400, "invalid_value", "temperature"),
    "text for a number": Bad(asked("Hello", max_tokens="many"), 400, "invalid_type", "max_tokens"),
    "too many choices": Bad(asked("Hello", n=99), 400, "invalid_value", "n"),
    "usage without a stream": Bad(
        asked("Hello", stream_options={"include_usage": True}), 400, "invalid_value", "stream_options"
    ),
    "half a size": Bad(asked([image(WHITE, resized_height=56)]), 400, "invalid_value", URL),
    "long text": Bad(asked("word " * 5000), 400, "context_length_exceeded", "messages"),
    "many pictures": Bad(asked(HUGE), 400, "context_length_exceeded", "messages"),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_refused_and_the_next_request_works(client: Client, kind: str, stream: bool) -> None:
    bad = BAD[kind]
    body: Any = bad.body
    if isinstance(body, dict):
        if stream and "stream_options" in body:
            pytest.skip("allowed in a stream")
        body = {**body, "stream": stream}
    reply = client.post(body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (bad.status, bad.code), reply.text
    assert error["param"] == bad.param
    assert set(error) == {"message", "type", "param", "code"}
    assert reply.headers["content-type"].startswith("application/json")
    assert reply.headers["x-request-id"]
    good = client.ask("Hello", max_tokens=8)
    assert good.text


def test_too_long_a_context_is_named_as_sdks_look_for_it(client: Client) -> None:
    message = client.post(asked("word " * 5000)).json()["error"]["message"]
    assert "This model's maximum context length is 4096 tokens" in message
    assert "context_length_exceeded" in message


def test_other_addresses_have_the_same_shape_of_error(client: Client) -> None:
    assert set(client.http.get("/v1/nothing").json()["error"]) == {"message", "type", "param", "code"}
    assert client.http.get("/v1/nothing").status_code == 404
    assert client.http.get("/v1/chat/completions").status_code == 405


def test_deep_json_is_refused(client: Client) -> None:
    depth = 100_000
    reply = client.post(b'{"model":' + b"[" * depth + b"]" * depth + b"}")
    assert reply.status_code == 400
    assert json.loads(reply.content)["error"]["code"]
    assert client.ask("Hello", max_tokens=8).text
