"""Pictures on the wire: every way to name one, and every way in which one can be wrong."""

from __future__ import annotations

import gc
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from server.core import Conversation, PictureSource
from server.engine.scripted import Script
from server.openai.chat.body import ChatCompletionRequest
from tests.api.gallery import Gallery
from tests.api.house import (
    BLUE,
    CHAT,
    GREEN,
    RED,
    YELLOW,
    House,
    body,
    data_url,
    error_of,
    image_url,
    open_house,
    plain,
    png,
    quarters,
)
from tests.waiting import eventually


def colours_seen(house: House) -> list[list[tuple[int, int, int]]]:
    """The colour of every token's patches, picture by picture; each token must be of one colour."""
    seen = []
    for placed in house.last_request.prompt.pictures:
        tokens = placed.picture.patches.reshape(-1, 4, 3, 2, 14, 14)
        pixels = tokens.transpose(0, 1, 3, 4, 5, 2).reshape(len(tokens), -1, 3)
        assert (pixels == pixels[:, :1]).all()
        seen.append([(int(token[0, 0]), int(token[0, 1]), int(token[0, 2])) for token in pixels])
    return seen


def test_a_picture_reaches_the_engine_as_patches_in_reading_order_of_tokens(house: House) -> None:
    house.ask([image_url(quarters(RED, GREEN, BLUE, YELLOW))])
    [placed] = house.last_request.prompt.pictures
    assert placed.picture.grid_thw == (1, 4, 4)
    assert placed.picture.patches.shape == (16, 1176)
    assert placed.picture.patches.dtype == np.uint8
    assert colours_seen(house) == [[RED, GREEN, BLUE, YELLOW]]


def test_pictures_keep_their_order(house: House, gallery: Gallery) -> None:
    house.ask([image_url(plain(GREEN)), image_url(gallery.url("/blue.png")), image_url(plain(RED))])
    assert [picture[0] for picture in colours_seen(house)] == [GREEN, BLUE, RED]


ESCAPES = {
    "PHP": {"/": "\\/"},
    ".NET": {"+": "\\u002B"},
    "both": {"/": "\\/", "+": "\\u002b"},
    "every letter": {"A": "\\u0041"},
    "none": {},
}


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("client", ESCAPES)
def test_a_long_picture_is_read_with_whatever_escapes_a_client_writes(house: House, client: str, wrapped: bool) -> None:
    """Kept apart of the JSON as it was sent; PHP escapes / by default, .NET the +."""
    rng = np.random.default_rng(5)
    noise = png(Image.fromarray(rng.integers(0, 256, (112, 112, 3), np.uint8)))
    house.ask([image_url(noise)])
    expected = house.last_request.prompt.pictures[0].picture.patches.copy()
    url = data_url(noise)
    if wrapped:
        start = url.index(",") + 1
        url = url[:start] + "\n".join(url[at : at + 76] for at in range(start, len(url), 76))
    content = json.dumps(body([image_url(url)]))
    for plain_letter, escaped in ESCAPES[client].items():
        before, after = content.split("data:", 1)
        content = before + "data:" + after.replace(plain_letter, escaped)
    reply = house.http.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert reply.status_code == 200, reply.text
    assert (house.last_request.prompt.pictures[0].picture.patches == expected).all()


@pytest.mark.parametrize(
    ("ending", "code"),
    [("AAAA====", "invalid_base64_image"), ("AA\\u0000A", "invalid_base64_image"), ("\\x41", "invalid_base64_image")],
)
def test_a_long_picture_that_is_no_base64_is_refused(house: House, ending: str, code: str) -> None:
    content = json.dumps(body([image_url(data_url(plain(RED) + bytes(9000)) + "ENDING")])).replace("ENDING", ending)
    reply = house.http.post(CHAT, content=content, headers={"content-type": "application/json"})
    error = error_of(reply, 400)
    assert (error["code"], error["param"]) == (code, "messages[0].content[0].image_url.url")


def test_a_wide_picture_lies_wide(house: House) -> None:
    house.ask([image_url(plain(RED, width=112, height=56))])
    [placed] = house.last_request.prompt.pictures
    assert placed.picture.grid_thw == (1, 4, 8)
    assert placed.length == 8


@pytest.mark.parametrize(
    "header", ["data:image;base64,", "data:image/png;base64,", "data:image/jpeg;base64,", "DATA:image/PNG;base64,"]
)
def test_the_seeds_own_message_with_a_data_url(house: House, header: str) -> None:
    """`{"type": "image", "image": ...}`, as qwen-vl-utils takes it; the bytes decide what the picture is."""
    encoded = data_url(plain(RED)).partition(",")[2]
    response = house.post(
        {
            "model": house.services.model_names[0],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image", "image": header + encoded},
                        {"type": "text", "text": "وصف هذه الصورة"},
                    ],
                }
            ],
        }
    )
    assert response.status_code == 200, response.text
    assert colours_seen(house) == [[RED] * 4]


def test_the_seeds_own_message_with_an_address(house: House, gallery: Gallery) -> None:
    response = house.ask([{"type": "image", "image": gallery.url("/red.png")}, {"type": "text", "text": "Describe."}])
    assert response.status_code == 200, response.text
    assert colours_seen(house) == [[RED] * 4]


def test_a_pictures_size_can_be_asked_for_in_the_terms_of_qwen_vl_utils(house: House) -> None:
    picture = plain(RED, 280, 280)
    sizes = {
        "as it is": {},
        "fewer": {"max_pixels": 56 * 56},
        "more": {"min_pixels": 300 * 300},
        "exact": {"resized_height": 56, "resized_width": 140},
    }
    grids: dict[str, set[tuple[int, int, int]]] = {}
    for name, size in sizes.items():
        for part in (image_url(picture), {"type": "image", "image": data_url(picture)}):
            assert house.ask([part | size]).status_code == 200
            grids.setdefault(name, set()).add(house.last_request.prompt.pictures[0].picture.grid_thw)
    assert grids == {"as it is": {(1, 20, 20)}, "fewer": {(1, 4, 4)}, "more": {(1, 22, 22)}, "exact": {(1, 4, 10)}}


@pytest.mark.parametrize("detail", ["auto", "low", "high", "original", None])
def test_every_detail_of_openai_is_taken(house: House, detail: str | None) -> None:
    assert house.ask([image_url(plain(RED), detail=detail)]).status_code == 200


def test_the_same_picture_twice_is_one_picture_to_the_engines_caches(house: House) -> None:
    house.ask([image_url(plain(RED)), image_url(plain(RED)), image_url(plain(BLUE))])
    first, second, third = (placed.picture.digest for placed in house.last_request.prompt.pictures)
    assert first == second != third


def test_callers_share_no_cached_picture() -> None:
    keys = ["ain-0123456789abcdefghijkl", "ain-zyxwvutsrqponmlkjihgfe"]
    digests, tenants = set(), set()
    with open_house(api_keys=keys) as house:
        for key in keys:
            house.http.headers["authorization"] = f"Bearer {key}"
            assert house.ask([image_url(plain(RED))]).status_code == 200
            digests.add(house.last_request.prompt.pictures[0].picture.digest)
            tenants.add(house.last_request.tenant)
    assert len(digests) == len(tenants) == 2


WRONG: dict[str, tuple[Any, str, str]] = {
    "a list of addresses": (
        {"type": "image_url", "image_url": ["https://example.org/a.png"]},
        "invalid_type",
        "messages[0].content[1].image_url",
    ),
    "no url": ({"type": "image_url", "image_url": {}}, "missing_required_parameter", "image_url.url"),
    "no image_url": ({"type": "image_url"}, "missing_required_parameter", "messages[0].content[1].image_url"),
    "no image": ({"type": "image"}, "missing_required_parameter", "messages[0].content[1].image"),
    "a number for a url": ({"type": "image_url", "image_url": {"url": 5}}, "invalid_type", "image_url.url"),
    "an unknown detail": (image_url(plain(RED), detail="huge"), "invalid_value", "image_url.detail"),
    "broken base64": (image_url("data:image/png;base64,!!!!"), "invalid_base64_image", "image_url.url"),
    "base64 cut off": (image_url("data:image/png;base64,iVBORw0KG"), "invalid_base64_image", "image_url.url"),
    "no base64 at all": (image_url("data:image/png,abc"), "invalid_base64_image", "image_url.url"),
    "not a picture": (image_url(b"Hello, I am a text."), "invalid_image_format", "image_url.url"),
    "an empty picture": (image_url("data:image/png;base64,"), "empty_image_file", "image_url.url"),
    "a picture cut off": (image_url(plain(RED)[:60]), "image_parse_error", "image_url.url"),
    "a document that is none of pages": (
        image_url(data_url(b"PK\x03\x04" + bytes(26) + b"word/document.xml", "image/png")),
        "unsupported_image_media_type",
        "image_url.url",
    ),
    "a format that is not offered": (
        image_url(b"8BPS" + bytes(100)),
        "unsupported_image_media_type",
        "image_url.url",
    ),
    "a path of the server": (image_url("/etc/passwd"), "invalid_image_url", "image_url.url"),
    "a file url": (image_url("file:///etc/passwd"), "invalid_image_url", "image_url.url"),
    "another scheme": (image_url("ftp://example.org/a.png"), "invalid_image_url", "image_url.url"),
    "an empty url": (image_url(""), "invalid_image_url", "image_url.url"),
    "an address inside": (image_url("http://127.0.0.1/a.png"), "invalid_image_url", "image_url.url"),
    "a metadata service": (image_url("http://169.254.169.254/latest"), "invalid_image_url", "image_url.url"),
    "half of a size": (image_url(plain(RED)) | {"resized_height": 56}, "invalid_value", ""),
    "no pixels": (image_url(plain(RED)) | {"max_pixels": 0}, "invalid_value", "max_pixels"),
    "too narrow": (image_url(plain(RED, 2, 500)), "invalid_image", "image_url.url"),
    "the seed's form, broken": ({"type": "image", "image": "data:image;base64,????"}, "invalid_base64_image", "image"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_picture_is_a_400_that_says_which_and_why(house: House, case: str) -> None:
    part, code, param = WRONG[case]
    error = error_of(house.ask([{"type": "text", "text": "Look:"}, part]), 400)
    assert error["type"] == "invalid_request_error"
    assert error["code"] == code
    assert error["param"].startswith("messages[0].content[1]")
    assert error["param"].endswith(param)
    assert house.engine.requests == []


def test_errors_of_fetching_are_told(house: House, gallery: Gallery) -> None:
    codes = {}
    for path in ("/missing.png", "/text", "/empty"):
        codes[path] = error_of(house.ask([image_url(gallery.url(path))]), 400)["code"]
    assert codes == {
        "/missing.png": "failed_to_download_image",
        "/text": "invalid_image_format",
        "/empty": "empty_image_file",
    }


def test_a_picture_that_takes_too_long_to_come_is_told(gallery: Gallery) -> None:
    with open_house(fetch_allowed_hosts=[gallery.address], fetch_timeout_s=0.1) as house:
        error = error_of(house.ask([image_url(gallery.url("/slow"))]), 400)
        assert error["code"] == "failed_to_download_image"
        assert eventually(lambda: house.at_rest)


def test_more_pictures_than_the_operator_allows_are_refused() -> None:
    with open_house(max_pictures=2) as house:
        part = image_url(plain(RED))
        assert house.ask([part] * 2).status_code == 200
        assert error_of(house.ask([part] * 3), 400)["param"] == "messages[0].content[2].image_url.url"


def test_the_operators_limits_of_a_picture_hold() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    with open_house(max_picture_mib=1, max_picture_megapixels=1, max_pixels=28 * 56 * 56) as house:
        assert error_of(house.ask([image_url(png(Image.fromarray(noise)))]), 400)["code"] == "image_file_too_large"
        assert error_of(house.ask([image_url(plain(RED, 1100, 1000))]), 400)["code"] == "image_too_large"
        assert house.ask([image_url(plain(RED, 900, 900))]).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_of_a_request_is_kept_while_its_answer_is_made(house: House, stream: bool) -> None:
    """Bodies are megabytes and answers take minutes: what was asked is dropped once the engine has it."""
    house.engine.script = Script(stall_after=1)
    gc.collect()  # what earlier tests have left in cycles
    with house.raw_chat(body([image_url(plain(RED))], stream=stream)):
        assert eventually(lambda: house.engine.running == 1)
        kinds = (Conversation, ChatCompletionRequest, PictureSource)
        assert eventually(lambda: not [one for one in gc.get_objects() if type(one) in kinds])
        assert house.engine.running == 1
