"""AIN's real shape on the real engine: the token counts of AIN's own pixel arithmetic, page by page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from tests.ain_shape import make_ain_shape
from tests.serving import Server, serve

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

VISION_MARKERS = 2
"""<|vision_start|> and <|vision_end|> around a picture's placeholders."""

PAGES = {
    "1920x1080": ((1920, 1080), 2691, 1222),
    "A4 at 300 dpi": ((2480, 3508), 11125, 1260),
    "A4 at 200 dpi": ((1654, 2339), 4956, 1260),
    "720x405": ((720, 405), 364, 364),
    "420x280": ((420, 280), 150, 150),
}
"""Size, tokens at AIN's own limits, tokens with max_pixels 1280*784: qwen-vl-utils' arithmetic."""


@pytest.fixture(scope="module")
def ain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = make_ain_shape(tmp_path_factory.mktemp("ain") / "AIN")
    with serve(
        "--model", str(folder), "--engine-arg", "load_format=dummy", "--kv-cache-gib", "1", model="AIN"
    ) as server:
        yield server


def _page(size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, (250, 248, 240)).save(buffer, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _prompt_tokens(server: Server, content: list[dict[str, object]]) -> int:
    body = {"model": server.model, "messages": [{"role": "user", "content": content}], "max_tokens": 1}
    reply = httpx.post(f"{server.address}/v1/chat/completions", json=body, timeout=1800)
    assert reply.status_code == 200, reply.text
    return int(reply.json()["usage"]["prompt_tokens"])


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("capped", [True, False], ids=["max_pixels 1280*784", "AIN's own limits"])
def test_a_page_costs_as_many_tokens_as_in_ain(ain: Server, name: str, capped: bool) -> None:
    size, free, with_cap = PAGES[name]
    text: dict[str, object] = {"type": "text", "text": "اقرأ النص في هذه الصورة."}
    picture: dict[str, object] = {"type": "image_url", "image_url": {"url": _page(size)}}
    if capped:
        picture["max_pixels"] = 1280 * 28 * 28
    alone = _prompt_tokens(ain, [text])
    assert _prompt_tokens(ain, [picture, text]) == alone + VISION_MARKERS + (with_cap if capped else free)


def test_three_a4_scans_do_not_fit_and_are_refused_before_the_engine(ain: Server) -> None:
    page = {"type": "image_url", "image_url": {"url": _page((2480, 3508))}}
    body = {"model": ain.model, "messages": [{"role": "user", "content": [page] * 3}]}
    reply = httpx.post(f"{ain.address}/v1/chat/completions", json=body, timeout=600)
    assert reply.status_code == 400
    assert reply.json()["error"]["code"] == "context_length_exceeded"
