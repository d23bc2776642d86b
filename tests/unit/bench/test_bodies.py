"""The requests of the bench are whole, and no two of them are alike."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from typing import Any

import httptools
import numpy as np
import pytest
from PIL import Image

from clients.bench import workloads as work
from clients.bench.bodies import A4, FULL_HD, PICTURES, THUMBNAIL, picture_request, text_request
from clients.bench.workloads import Requests, Workload

SIZES = {"224px": (THUMBNAIL, 5_000, 30_000), "1080p": (FULL_HD, 200_000, 800_000), "a4": (A4, 1_800_000, 2_200_000)}


def body(request: bytes) -> dict[str, Any]:
    """The JSON of a request, taken out by an HTTP parser."""
    pieces: list[bytes] = []
    ended: list[bool] = []

    class Parts:
        def on_body(self, data: bytes) -> None:
            pieces.append(data)

        def on_message_complete(self) -> None:
            ended.append(True)

    parser = httptools.HttpRequestParser(Parts())
    parser.feed_data(request)
    assert ended == [True]
    assert (parser.get_method(), parser.should_keep_alive()) == (b"POST", True)
    found: dict[str, Any] = json.loads(b"".join(pieces))
    return found


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_is_of_its_kind(kind: str) -> None:
    size, least, most = SIZES[kind]
    data = PICTURES[kind](0)
    assert Image.open(io.BytesIO(data)).size == size
    assert least < len(data) < most


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_differ_in_their_pixels(kind: str) -> None:
    first, second = (np.asarray(Image.open(io.BytesIO(PICTURES[kind](number)))) for number in (0, 1))
    assert np.mean(first != second) > 0.5


@pytest.mark.parametrize(
    "make",
    [lambda stream: text_request(7, 16, stream=stream), lambda stream: picture_request("224px", 7, 1, stream=stream)],
)
def test_a_request_is_whole(make: Callable[[bool], bytes]) -> None:
    plain, streamed = body(make(False)), body(make(True))
    assert streamed == {**plain, "stream": True, "stream_options": {"include_usage": True}}
    assert plain["temperature"] == 0


def test_a_picture_comes_as_it_was_drawn() -> None:
    url = body(picture_request("224px", 3, 1, stream=False))["messages"][0]["content"][0]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) == PICTURES["224px"](3)


def test_no_server_is_asked_the_same_twice() -> None:
    small = [Workload(name, kind, 3, warm_up=2) for name, kind in (("a", "text"), ("b", "text"), ("c", "224px"))]
    requests = Requests(small)
    asked = [request for workload in small for request in requests.of(workload)]
    assert len(asked) == len(set(asked)) == 15


def test_a_workload_that_repeats_asks_one_thing() -> None:
    same = Workload("same", "224px", 3, same=True, warm_up=2)
    other = Workload("other", "224px", 3, warm_up=2)
    requests = Requests([other, same])
    assert len(requests.of(same)) == 5
    assert len(set(requests.of(same)) - set(requests.of(other))) == 1


def test_all_pictures_of_a_round_are_different_ones() -> None:
    """They come back to where they began after as many steps as a page has rows or columns."""
    for kind, (width, height) in (("a4", A4), ("1080p", FULL_HD)):
        count = sum(workload.warm_up + workload.count for workload in work.ALL if workload.kind == kind)
        moves = {(29 * number % height, 13 * number % width) for number in range(count)}
        assert len(moves) == count
