"""What a client may name as a picture, and what each refusal is called."""

import base64

import pytest

from server.core import PictureSource
from server.errors import InvalidImage
from server.media.sources import Inline, Remote, parse_source

PARAM = "messages[0].content[1].image_url.url"
BYTES = bytes(range(256))
ENCODED = base64.b64encode(BYTES).decode()


def parse(url: str, max_bytes: int = 10_000) -> Inline | Remote:
    return parse_source(PictureSource(url, PARAM), max_bytes=max_bytes)


def decode(url: str, max_bytes: int) -> bytes:
    content = parse(url, max_bytes)
    assert isinstance(content, Inline)
    return content.decode()


def refusal(url: str, max_bytes: int = 10_000) -> InvalidImage:
    with pytest.raises(InvalidImage) as caught:
        decode(url, max_bytes)
    assert caught.value.param == PARAM
    return caught.value


@pytest.mark.parametrize(
    "head",
    [
        "data:image/jpeg;base64,",
        "data:image/jpg;base64,",
        "data:image/png;base64,",
        "data:image/webp;base64,",
        "data:image/gif;base64,",
        "data:image;base64,",
        "DATA:IMAGE/PNG;BASE64,",
        "data:image/png;name=page.png;base64,",
        "data:image/png; base64,",
        " \ndata:image/png;base64,",
    ],
)
def test_data_urls_of_pictures_are_decoded(head: str) -> None:
    content = parse(head + ENCODED)
    assert isinstance(content, Inline)
    assert content.decode() == BYTES


def test_wrapped_lines_are_joined() -> None:
    wrapped = base64.encodebytes(BYTES).decode().replace("\n", "\r\n\t ")
    content = parse("data:image/png;base64," + wrapped)
    assert isinstance(content, Inline)
    assert content.decode() == BYTES


@pytest.mark.parametrize("length", range(1, 8))
def test_the_size_is_known_before_decoding(length: int) -> None:
    url = "data:image/png;base64," + base64.b64encode(b"x" * length).decode()
    content = parse(url, max_bytes=length)
    assert isinstance(content, Inline)
    assert content.size == length == len(content.decode())
    assert refusal(url, max_bytes=length - 1).code == "image_file_too_large"


def test_white_space_does_not_count_as_size() -> None:
    assert isinstance(parse("data:image/png;base64," + "AAAA" + "\n" * 100_000, max_bytes=3), Inline)


def test_an_oversized_data_url_is_refused_by_its_length_alone() -> None:
    error = refusal("data:image/png;base64," + "!" * 8_000_000, max_bytes=1 << 20)
    assert error.code == "image_file_too_large"
    assert "1 MiB" in error.message


@pytest.mark.parametrize(
    "url", ["http://example.com/a.png", "HTTPS://example.com/a.png", " https://example.com/a.png\n"]
)
def test_web_addresses_are_left_for_the_fetcher(url: str) -> None:
    assert parse(url) == Remote(url.strip(), PARAM)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        # base64 that is none
        ("data:image/png;base64,AAA", "invalid_base64_image"),
        ("data:image/png;base64,AAAA=", "invalid_base64_image"),
        ("data:image/png;base64,AA==AAAA", "invalid_base64_image"),
        ("data:image/png;base64,A===", "invalid_base64_image"),
        ("data:image/png;base64,====", "invalid_base64_image"),
        ("data:image/png;base64,AA-_", "invalid_base64_image"),
        ("data:image/png;base64,AA%3D%3D", "invalid_base64_image"),
        ("data:image/png;base64,AAA\0", "invalid_base64_image"),
        ("data:image/png;base64,AAA\u00e9", "invalid_base64_image"),
        ("data:image/png;base64,AAA\u0660", "invalid_base64_image"),
        ("data:image/png;base64,AAA\ud800", "invalid_base64_image"),
        ("data:image/png,AAAA", "invalid_base64_image"),
        ("data:image/png;charset=utf-8,AAAA", "invalid_base64_image"),
        # nothing inside
        ("data:image/png;base64,", "empty_image_file"),
        ("data:image;base64, \n", "empty_image_file"),
        # not a picture that we take
        ("data:,AAAA", "unsupported_image_media_type"),
        ("data:;base64,AAAA", "unsupported_image_media_type"),
        ("data:text/html;base64,AAAA", "unsupported_image_media_type"),
        ("data:image/svg+xml;base64,AAAA", "unsupported_image_media_type"),
        ("data:image/tiff;base64,AAAA", "unsupported_image_media_type"),
        ("data:application/pdf;base64,AAAA", "unsupported_image_media_type"),
        ("data:image/png/x;base64,AAAA", "unsupported_image_media_type"),
        # no data URL at all
        ("data:", "invalid_image_url"),
        ("data:image/png;base64", "invalid_image_url"),
        ("data:image/png;base64" + "A" * 5000, "invalid_image_url"),
        ("", "invalid_image_url"),
        ("   ", "invalid_image_url"),
        ("https://example.com/" + "a" * 9000, "invalid_image_url"),
        # a file of this machine
        ("/etc/passwd", "invalid_image_url"),
        ("page.png", "invalid_image_url"),
        ("../../etc/passwd", "invalid_image_url"),
        ("~/page.png", "invalid_image_url"),
        ("C:\\page.png", "invalid_image_url"),
        ("c:/page.png", "invalid_image_url"),
        ("\\\\host\\share\\page.png", "invalid_image_url"),
        ("//example.com/page.png", "invalid_image_url"),
        ("file:///etc/passwd", "invalid_image_url"),
        ("FILE:///etc/passwd", "invalid_image_url"),
        ("file:/etc/passwd", "invalid_image_url"),
        ("/etc/passwd\0.png", "invalid_image_url"),
        (ENCODED, "invalid_image_url"),
        # other schemes
        ("ftp://example.com/a.png", "invalid_image_url"),
        ("gopher://example.com/", "invalid_image_url"),
        ("javascript:alert(1)", "invalid_image_url"),
        ("s3://bucket/key", "invalid_image_url"),
        ("ssh+git://host/x", "invalid_image_url"),
        ("blob:https://example.com/1", "invalid_image_url"),
        ("unix:/run/docker.sock", "invalid_image_url"),
    ],
)
def test_everything_else_is_refused_by_name(url: str, code: str) -> None:
    error = refusal(url)
    assert error.code == code
    assert len(error.message) < 250


@pytest.mark.parametrize("url", ["/home/me/secret.png", "file:///home/me/secret.png", "secret.png"])
def test_a_path_is_told_what_to_do_instead(url: str) -> None:
    message = refusal(url).message
    assert "never opens a client's local path" in message
    assert "data:image/png;base64,..." in message


@pytest.mark.parametrize(
    "url",
    [
        ENCODED,
        "data:image/png;base64" + ENCODED,
        "data:" + ENCODED,
        "data:" + ENCODED[:40] + ",",
        "data:image/png;base64,*" + ENCODED,
        "data:image/" + ENCODED[:60] + ";base64,AAAA",
    ],
)
def test_no_message_repeats_the_payload(url: str) -> None:
    message = refusal(url).message.lower()
    assert not any(ENCODED[i : i + 12].lower() in message for i in range(200))
