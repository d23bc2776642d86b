"""The key that sends requests about the same picture to the same replica."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.routes.affinity import image_hash

FILE = b"\x89PNG and whatever else a file holds \x00\xff"
ENCODED = base64.b64encode(FILE).decode()
KEY = sha256(FILE).hexdigest()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{ENCODED}",
        f"data:image/jpeg;base64,{ENCODED}",
        f"data:image;base64,{ENCODED}",
        f"DATA:image/png;charset=utf-8;BASE64,{ENCODED}",
        f" \n data:image/png;base64,{ENCODED} ",
        f"data:image/png;base64,{ENCODED[:20]}\r\n{ENCODED[20:]}\n",
    ],
)
def test_a_data_url_has_the_hash_of_its_file_whatever_surrounds_it(url: str) -> None:
    assert image_hash([url]) == KEY


def test_an_address_has_the_hash_of_its_text() -> None:
    url = "https://example.org/a.png?x=1"
    assert image_hash([url]) == sha256(url.encode()).hexdigest()
    assert image_hash([f" {url}\n"]) == image_hash([url])
    assert image_hash(["HTTP://example.org/b.png"]) == sha256(b"HTTP://example.org/b.png").hexdigest()


def test_the_first_picture_decides() -> None:
    assert image_hash([f"data:image/png;base64,{ENCODED}", "https://example.org/"]) == KEY
    assert image_hash(iter(["https://example.org/", f"data:image/png;base64,{ENCODED}"])) != KEY


@pytest.mark.parametrize(
    "url",
    [
        "",
        "data:",
        "data:image/png;base64,",
        "data:image/png;base64",
        f"data:image/png,{ENCODED}",
        "data:image/png;base64,AAAAA",
        "data:image/png;base64,AA=A",
        "data:image/png;base64,A*AA",
        "data:image/png;base64,AAA\u0661",
        "data:image/png;base64,\ud800AAA",
        f"data:image/png;{'x' * 300};base64,{ENCODED}",
        "file:///srv/scans/a.png",
        "/srv/scans/a.png",
        "ftp://example.org/a.png",
        "https",
    ],
)
def test_what_has_no_file_that_a_client_could_have_hashed_has_no_key(url: str) -> None:
    assert image_hash([url]) is None


def test_a_request_without_pictures_has_no_key() -> None:
    assert image_hash([]) is None


def test_half_a_surrogate_pair_in_an_address_raises_nothing() -> None:
    assert image_hash(["https://example.org/\ud800"]) is not None


@given(st.text() | st.text().map(lambda text: f"data:image/png;base64,{text}"))
def test_nothing_raises(url: str) -> None:
    assert image_hash([url]) in {None, image_hash([url])}


@given(st.binary(min_size=1))
def test_any_file_has_the_hash_that_sha256sum_prints(file: bytes) -> None:
    encoded = base64.b64encode(file).decode()
    assert image_hash([f"data:image/png;base64,{encoded}"]) == sha256(file).hexdigest()
