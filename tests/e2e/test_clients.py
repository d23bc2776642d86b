"""What clients do: OpenAI's SDK, curl, balancers and Prometheus."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from server.demo.drawing import draw_things
from server.demo.phrases import Thing
from tests.e2e.asking import PATH, Client, data_url, encoded, image, text
from tests.serving import Server

pytestmark = pytest.mark.e2e

THING = Thing("star", "blue", "at the bottom right", 120, 118, 34, (50, 80, 220))
PICTURE = draw_things((168, 168), (250, 250, 250), [THING])
RIGHT = "a blue star at the bottom right."
MESSAGES: list[Any] = [{"role": "user", "content": [text("Describe this image."), image(PICTURE)]}]


@pytest.fixture
def sdk(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_sdk_answers(sdk: openai.OpenAI) -> None:
    reply = sdk.chat.completions.create(
        model="ain-demo",
        messages=MESSAGES,
        temperature=0,
    )
    assert reply.choices[0].message.content == RIGHT
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage is not None
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply._request_id


def test_the_sdk_streams(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(
        model="ain-demo",
        messages=MESSAGES,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert [delta.role for delta in deltas if delta.role] == ["assistant"]
    assert "".join(delta.content or "" for delta in deltas) == RIGHT
    assert len(deltas) > 4, "the answer came in one piece"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.anyio
async def test_the_async_sdk_streams(server: Server) -> None:
    async with (
        openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0) as client,
        client.chat.completions.stream(
            model="ain-demo",
            messages=MESSAGES,
            temperature=0,
        ) as stream,
    ):
        events = [event async for event in stream if event.type == "content.delta"]
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == RIGHT
    assert events[-1].snapshot == RIGHT


def test_the_sdk_knows_our_errors(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        sdk.chat.completions.create(model="gpt-17", messages=[{"role": "user", "content": "Hello"}])
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(model="ain-demo", messages=[])
    assert refused.value.param == "messages"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing: sudo apt-get install -y curl brings it")
def test_curl_answers_and_streams(server: Server) -> None:
    url = data_url(encoded(PICTURE, "JPEG", quality=92), "image/jpeg")
    content = [{"type": "image_url", "image_url": {"url": url}}, text("صف هذه الصورة.")]
    body = {"model": "ain-demo", "messages": [{"role": "user", "content": content}], "temperature": 0}
    command = ["curl", "-sS", "-N", f"{server.address}{PATH}", "-H", "Content-Type: application/json", "-d", "@-"]

    def curl(**more: bool) -> str:
        asked = json.dumps({**body, **more})
        return subprocess.run(command, input=asked, text=True, capture_output=True, check=True, timeout=60).stdout

    right = "نجمة زرقاء في أسفل اليمين."
    assert json.loads(curl())["choices"][0]["message"]["content"] == right
    streamed = curl(stream=True)
    assert streamed.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == right
    assert all("usage" not in chunk for chunk in chunks)


def test_models_are_listed(sdk: openai.OpenAI, client: Client) -> None:
    (model,) = sdk.models.list().data
    assert (model.id, model.object, model.owned_by) == ("ain-demo", "model", "vllm")
    assert sdk.models.retrieve("ain-demo") == model
    assert client.http.get("/v1/models").json()["data"][0]["max_model_len"] == 4096
    assert client.http.get("/v1/models/another").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_is_good(client: Client, path: str) -> None:
    assert client.http.get(path).status_code == 200


def test_replies_carry_a_request_id(client: Client) -> None:
    assert client.post(client.body("Hello"), **{"x-request-id": "mine-42"}).headers["x-request-id"] == "mine-42"
    ids = {client.post(client.body("Hello", max_tokens=1)).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert client.post(b"not json").headers["x-request-id"]


@pytest.mark.parametrize(
    "name",
    [
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:cache_config_info",
        "vllm:prompt_tokens_total",
        "vllm:time_to_first_token_seconds_count",
        "ain_http_requests_total",
        "ain_ready",
    ],
)
def test_metrics_have_the_names_that_others_read(server: Server, client: Client, name: str) -> None:
    client.ask("Hello", max_tokens=2)
    assert server.metric(name) >= 0


def test_metrics_count_tokens(server: Server, client: Client) -> None:
    before = server.metric("vllm:generation_tokens_total")
    reply = client.ask("Count to twenty.", max_tokens=7)
    server.await_that(
        lambda: server.metric("vllm:generation_tokens_total") == before + reply.completion_tokens, "counted", 2
    )


def test_plain_pages_are_there(client: Client) -> None:
    replies: list[httpx.Response] = [client.http.get(path) for path in ("/docs", "/openapi.json")]
    assert [reply.status_code for reply in replies] == [200, 200]
