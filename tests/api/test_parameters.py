"""Nothing of a request is passed over in silence: in the reply's header, in the count, in the log; or it is refused."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.api.house import House, body, chunks, data_url, error_of, open_house, png
from tests.api.test_media import film
from tests.model import NAME

IGNORED = "x-ignored-parameters"
UNKNOWN: dict[str, Any] = {"flavour": "mint", "messages": [{"role": "user", "content": "Hello", "mood": "good"}]}
HERE = "messages[0].content[0]"


def picture() -> str:
    """280 x 280 pixels, 100 tokens."""
    return data_url(png(Image.new("RGB", (280, 280), (255, 0, 0))))


def lengths(house: House) -> list[int]:
    """Tokens of each picture and clip that the engine got."""
    return [placed.length for placed in house.last_request.prompt.pictures]


def refused(house: House, content: Any, **more: Any) -> str:
    """The parameter for which a request is refused before the engine hears of it."""
    error = error_of(house.ask(content, **more), 400)
    assert error["code"] == "unsupported_parameter"
    assert house.engine.requests == []
    assert error["param"] in error["message"]
    return str(error["param"])


# ---- What is told


@pytest.mark.parametrize("stream", [False, True])
def test_what_nobody_knows_is_answered_and_told_in_a_header(house: House, stream: bool) -> None:
    reply = house.post(body() | UNKNOWN | {"stream": stream})
    assert reply.status_code == 200
    assert reply.headers[IGNORED] == "flavour, messages[0].mood"
    if stream:
        assert chunks(reply.content)
    assert IGNORED not in house.ask().headers


def counted(house: House) -> float:
    found = re.search(r"^ain_parameters_ignored_total (\S+)$", house.http.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_what_nobody_knows_is_counted_without_its_name(house: House) -> None:
    before = counted(house)
    house.post(body() | UNKNOWN)
    assert counted(house) == before + 2
    assert "flavour" not in house.http.get("/metrics").text


def test_what_nobody_knows_is_a_line_of_the_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "server.routes"):
        house.post(body() | UNKNOWN | {"a\r\nforged: line": 1})
    [line] = [one for one in caplog.messages if "without effect" in one]
    assert line == "parameters without effect: flavour, a??forged??line, messages[0].mood"


def test_a_hundred_unknown_names_make_no_long_header(house: House) -> None:
    reply = house.ask(**{f"zq{number}" + "\u0645\n," * 50: 1 for number in range(100)})
    assert reply.status_code == 200
    assert len(reply.headers[IGNORED]) < 1200
    assert re.search(r", \+\d+$", reply.headers[IGNORED])


# ---- Where the operator wants it refused


@pytest.fixture(scope="module")
def shared_strict_house() -> Iterator[House]:
    with open_house(unknown_parameters="refuse", max_pixels=224 * 224, max_pixels_ceiling=448 * 448) as house:
        yield house


@pytest.fixture
def strict(shared_strict_house: House) -> Iterator[House]:
    shared_strict_house.engine.requests.clear()
    with shared_strict_house.unharmed() as house:
        yield house


def test_an_operator_can_have_it_refused(strict: House) -> None:
    error = error_of(strict.post(body() | UNKNOWN), 400)
    assert (error["code"], error["param"]) == ("unsupported_parameter", "flavour")
    assert "messages[0].mood" in error["message"]
    assert strict.engine.requests == []


def test_what_asks_for_nothing_is_never_refused(strict: House) -> None:
    reply = strict.ask(
        [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}, "y"],
        chat_template_kwargs={"enable_thinking": False, "thinking": False},
        tools=[{"type": "function"}],
        tool_choice="none",
        stop="",
        top_p=0,
        web_search_options={},
        structured_outputs={},
        max_tokens=5.0,
        user={"id": 1},
    )
    assert reply.status_code == 200, reply.text
    assert IGNORED not in reply.headers


def test_the_models_own_template_decides_what_its_arguments_mean(house: House) -> None:
    """The demo model's template reads add_vision_id, and nothing of thinking."""
    assert refused(house, "x", chat_template_kwargs={"add_vision_id": True}) == "chat_template_kwargs.add_vision_id"
    reply = house.ask(chat_template_kwargs={"enable_thinking": True})
    assert reply.headers[IGNORED] == "chat_template_kwargs.enable_thinking"


# ---- Requests that were answered without what they had asked for


def test_max_pixels_inside_image_url(house: House) -> None:
    part = {"type": "image_url", "image_url": {"url": picture(), "max_pixels": 224 * 224}}
    assert house.ask([part]).status_code == 200
    assert lengths(house) == [64]


def test_max_pixel_inside_image_url_is_a_slip(house: House) -> None:
    part = {"type": "image_url", "image_url": {"url": picture(), "max_pixel": 224 * 224}}
    assert refused(house, ["x", part]) == "messages[0].content[1].image_url.max_pixel"


def test_fps_inside_video_url(house: House) -> None:
    """Of eight seconds with a frame each."""
    clip = {"url": film(count=8, fps=1), "resized_height": 56, "resized_width": 84}
    assert house.ask([{"type": "video_url", "video_url": {**clip, "fps": 0.5}}]).status_code == 200
    [at_half] = lengths(house)
    assert house.ask([{"type": "video_url", "video_url": clip}]).status_code == 200
    assert lengths(house) == [2 * at_half]


def test_num_frames_beside_a_video(house: House) -> None:
    sized = {"url": film(count=8, fps=1), "resized_height": 56, "resized_width": 84}
    assert house.ask([{"type": "video_url", "video_url": sized, "num_frames": 4}]).status_code == 200
    assert lengths(house) == [2 * 6]  # of two frames each 6 tokens


@pytest.mark.parametrize("name", ["images", "image", "image_url", "attachments"])
def test_pictures_of_a_message(house: House, name: str) -> None:
    said = {"role": "user", "content": "Describe this image.", name: ["iVBORw0KGgo="]}
    error = error_of(house.post({"model": NAME, "messages": [said]}), 400)
    assert (error["code"], error["param"]) == ("unsupported_parameter", f"messages[0].{name}")
    assert "image_url" in error["message"]


def test_pictures_of_a_message_are_refused_by_name_however_large_they_are(house: House) -> None:
    said = {"role": "user", "content": "Describe this image.", "images": ["A" * (10 << 20)]}
    error = error_of(house.post({"model": NAME, "messages": [said]}), 400)
    assert (error["code"], error["param"]) == ("unsupported_parameter", "messages[0].images")


def test_pictures_beside_the_messages(house: House) -> None:
    assert refused(house, "Describe this image.", images=["iVBORw0KGgo="]) == "images"


def test_a_picture_in_a_part_of_text(house: House) -> None:
    part = {"type": "text", "text": "Describe this image.", "image_url": {"url": picture()}}
    assert refused(house, [part]) == f"{HERE}.image_url"


def test_detail_beside_image_url(strict: House) -> None:
    part = {"type": "image_url", "image_url": {"url": picture()}}
    assert strict.ask([part]).status_code == 200
    assert lengths(strict) == [64]
    assert strict.ask([part | {"detail": "original"}]).status_code == 200
    assert lengths(strict) == [100]
    inside = {"type": "image_url", "image_url": {"url": picture(), "detail": "original"}}
    assert error_of(strict.ask([inside | {"detail": "low"}]), 400)["param"] == f"{HERE}.image_url.detail"


def test_image_url_as_a_string(house: House) -> None:
    assert house.ask([{"type": "image_url", "image_url": picture()}]).status_code == 200
    assert lengths(house) == [100]


def test_what_an_assistant_refused_is_in_the_prompt(house: House) -> None:
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "refusal": "I will not."},
        {"role": "user", "content": "b"},
    ]
    assert house.post({"model": NAME, "messages": turns}).status_code == 200
    assert "assistant\nI will not." in house.last_prompt
