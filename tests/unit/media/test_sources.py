"""What a client may name as a picture, clip or document, and what each refusal is called."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.core import RawString
from server.errors import BadRequest, InvalidFile, InvalidImage, InvalidVideo, MediaKind, invalid_media
from server.media.sources import (
    EXAMPLES,
    MAX_HEADER,
    MAX_URL_LENGTH,
    Content,
    Inline,
    Local,
    Remote,
    bad_base64,
    parse_source,
    too_large,
    too_large_together,
)
from server.openai.json_body import LONG_BYTES, JsonBody

PARAM = "messages[0].content[1].image_url.url"
BYTES = bytes(range(256))
ENCODED = base64.b64encode(BYTES).decode()
ERRORS: dict[MediaKind, type[BadRequest]] = {"image": InvalidImage, "video": InvalidVideo, "file": InvalidFile}
KINDS = tuple(ERRORS)


def parse(url: str, kind: MediaKind = "image", max_bytes: int = 10_000) -> Content:
    return parse_source(url, kind, max_bytes=max_bytes, param=PARAM)


def inline(url: str, kind: MediaKind = "image", max_bytes: int = 10_000) -> Inline:
    content = parse(url, kind, max_bytes)
    assert isinstance(content, Inline)
    assert (content.kind, content.param) == (kind, PARAM)
    return content


def refusal(url: str, kind: MediaKind = "image", max_bytes: int = 10_000) -> BadRequest:
    """How it is refused, at the latest when its base64 is taken out."""
    with pytest.raises(ERRORS[kind]) as caught:
        inline(url, kind, max_bytes).encoded()
    assert caught.value.param == PARAM
    return caught.value


# ---- Data URLs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("image", "data:image/jpeg;base64,"),
        ("image", "data:image/jpg;base64,"),
        ("image", "data:image/png;base64,"),
        ("image", "data:image/webp;base64,"),
        ("image", "data:image/gif;base64,"),
        ("image", "data:image;base64,"),
        ("image", "DATA:IMAGE/PNG;BASE64,"),
        ("image", "data:image/png;name=page.png;base64,"),
        ("image", "data:image/png; base64,"),
        ("image", " \ndata:image/png;base64,"),
        ("video", "data:video/mp4;base64,"),
        ("video", "data:video/webm;base64,"),
        ("video", "data:video/quicktime;base64,"),
        ("video", "data:video/x-m4v;base64,"),
        ("video", "data:video/x-matroska;base64,"),
        ("video", "data:image/gif;base64,"),
        ("video", "data:video/webm;codecs=vp9,opus;base64,"),  # as browsers' recorders write it
        ("video", 'data:video/webm;codecs="vp9,opus";base64,'),
        ("video", "data:video/mp4; codecs=avc1.42E01E, mp4a.40.2; base64 ,"),
        ("image", 'data:image/png;name="a,b.png";base64,'),
        ("image", 'data:image/png;name="a;base64,b.png";base64,'),
        ("image", 'data:image/png;name="a \\"b\\", c.png";base64,'),
        ("image", "data:image/png;name=صورة,٢.png;base64,"),
        ("image", "data:image/png;name=" + "%D8%B5%D9%88" * 500 + ";base64,"),
        ("image", "data:image/png;" + "a=b;" * 2000 + "base64,"),
        ("video", "data:video;base64,"),
        ("file", "data:application/pdf;base64,"),
        ("file", "data:application/x-pdf;base64,"),
        ("file", "data:application/pdf;name=report.pdf;base64,"),
    ],
)
def test_the_base64_of_a_data_url_is_taken_out(kind: MediaKind, head: str) -> None:
    content = inline(head + ENCODED, kind)
    assert b"".join(content.encoded()) == ENCODED.encode()
    assert content.size == len(BYTES)


@pytest.mark.parametrize(
    "head",
    [
        "data:image/png;name=" + "a" * MAX_HEADER + ";base64,",
        'data:image/png;name="a;base64,',  # its quotation does not end
        "data:image/png," + "A" * 4000 + ";charset=x,",
        "data:image/png;" + "base64" * 2000 + ",",
    ],
    ids=["endless", "unquoted", "later", "again"],
)
def test_a_data_url_whose_base64_does_not_begin_is_told_so(head: str) -> None:
    message = refusal(head + ENCODED).message
    assert "not marked as base64" in message or "no comma" in message


PARAMETERS = st.one_of(
    st.from_regex(r"[a-z0-9=._ -]{0,30}(,[a-z0-9=._ -]{0,9})?", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), max_size=30).map(
        lambda text: f'name="{text}"'
    ),
)


@settings(deadline=None)
@given(st.lists(PARAMETERS, max_size=4), st.binary(max_size=9), st.booleans())
def test_parameters_of_any_kind_stand_before_the_base64(parameters: list[str], data: bytes, escape: bool) -> None:
    """In a string of its own, and in the body of a request, where JSON's escapes still stand."""
    data += BYTES * (LONG_BYTES // len(BYTES))
    parameters = [one for one in parameters if one.strip().lower() != "base64"]
    url = ";".join(["data:image/png", *parameters, "base64,"]) + base64.b64encode(data).decode()
    assert base64.b64decode(b"".join(inline(url).encoded())) == data
    written = json.dumps({"url": url}, ensure_ascii=escape).replace("/", "\\/" if escape else "/")
    body = JsonBody.whole(written.encode())
    raw = body.find(json.loads(bytes(body.json))["url"])
    assert isinstance(raw, RawString)
    content = parse_source(raw, "image", max_bytes=10_000, param=PARAM)
    assert isinstance(content, Inline)
    assert base64.b64decode(b"".join(content.encoded()).replace(b"\\/", b"/")) == data
    assert abs(content.size - len(data)) <= 6 * sum(map(len, parameters))


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300), st.booleans(), st.booleans(), st.booleans())
def test_base64_in_other_habits_is_as_large(data: bytes, of_urls: bool, padded: bool, escaped: bool) -> None:
    encoded = (base64.urlsafe_b64encode if of_urls else base64.b64encode)(data).decode()
    encoded = encoded if padded else encoded.rstrip("=")
    content = inline("data:image/png;base64," + (quote(encoded, safe="") if escaped else encoded))
    assert content.size >= len(data)
    if not escaped:
        assert content.size == len(data)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=300), st.sampled_from(["", "\n", "\r\n\t "]))
def test_the_size_is_known_before_decoding(data: bytes, line_end: str) -> None:
    """However its lines are wrapped: white space does not count."""
    url = "data:image/png;base64," + base64.encodebytes(data).decode().replace("\n", line_end)
    content = inline(url, max_bytes=len(data))
    assert content.size == len(data)
    assert base64.b64decode(b"".join(content.encoded())) == data
    if len(data) > 1:
        assert refusal(url, max_bytes=len(data) - 1).code == "image_file_too_large"


def test_white_space_does_not_count_as_size() -> None:
    assert inline("data:image/png;base64," + "AAAA" + "\n" * 100_000, max_bytes=3).size == 3


def test_an_oversized_data_url_is_refused_by_its_length_alone() -> None:
    error = refusal("data:image/png;base64," + "!" * 8_000_000, max_bytes=1 << 20)
    assert error.code == "image_file_too_large"
    assert "1 MiB" in error.message


# ---- Where to get the rest from ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "url", ["http://example.com/a.png", "HTTPS://example.com/a.png", " https://example.com/a.png\n", "http:", "https:x"]
)
def test_web_addresses_are_left_for_the_fetcher(url: str, kind: MediaKind) -> None:
    assert parse(url, kind) == Remote(url.strip(), kind, PARAM)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///media/a.png", "/media/a.png"),
        ("FILE:///media/a.png", "/media/a.png"),
        ("file:/media/a.png", "/media/a.png"),
        ("file://localhost/media/a.png", "/media/a.png"),
        ("file://LOCALHOST/media/a.png", "/media/a.png"),
        (" file:///media/a.png\n", "/media/a.png"),
        ("file:///media/a%20b%25.png", "/media/a b%.png"),
        ("file:///media/%D8%B5.png", "/media/ص.png"),
        ("file:///media/ص.png", "/media/ص.png"),
        ("file:///media/%2561.png", "/media/%61.png"),
        ("file:///media/a;b=c.png", "/media/a;b=c.png"),
        ("file:///media/a%3Fb%23c.png", "/media/a?b#c.png"),
        # where these lead is for others to judge
        ("file:///etc/passwd", "/etc/passwd"),
        ("file:///media/../etc/passwd", "/media/../etc/passwd"),
        ("file:///media/%2e%2e%2fetc/passwd", "/media/../etc/passwd"),
        ("file:///C:/page.png", "/C:/page.png"),
    ],
)
def test_file_urls_are_read_and_not_yet_judged(url: str, path: str, kind: MediaKind) -> None:
    assert parse(url, kind) == Local(path, kind, PARAM)


@pytest.mark.parametrize("scheme", ["https", "file"])
def test_the_longest_url_is_bounded(scheme: str) -> None:
    url = f"{scheme}:///".ljust(MAX_URL_LENGTH, "a")
    assert isinstance(parse(url), Remote | Local)
    assert f"longer than {MAX_URL_LENGTH}" in refusal(url + "a").message


# ---- What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "code"),
    [
        # base64 that cannot be any
        ("data:image/png;base64,A", "invalid_base64_image"),
        ("data:image/png;base64,AAAAA", "invalid_base64_image"),
        ("data:image/png;base64,AAAA=", "invalid_base64_image"),
        ("data:image/png;base64,AAA\u00e9", "invalid_base64_image"),
        ("data:image/png;base64,AAA\u0660", "invalid_base64_image"),
        ("data:image/png;base64,AAA\ud800", "invalid_base64_image"),
        ("data:image/png,AAAA", "invalid_base64_image"),
        ("data:image/png;charset=utf-8,AAAA", "invalid_base64_image"),
        ("data:image/png;base64;charset=utf-8,AAAA", "invalid_base64_image"),
        # nothing inside
        ("data:image/png;base64,", "empty_image_file"),
        ("data:image;base64, \n", "empty_image_file"),
        ("data:,AAAA", "invalid_base64_image"),
        # no data URL at all
        ("data:", "invalid_image_url"),
        ("data:image/png;base64", "invalid_image_url"),
        ("data:image/png;base64" + "A" * 5000, "invalid_image_url"),
        ("", "invalid_image_url"),
        ("   ", "invalid_image_url"),
        ("https://example.com/" + "a" * 9000, "invalid_image_url"),
        # a path
        ("/etc/passwd", "invalid_image_url"),
        ("page.png", "invalid_image_url"),
        ("../../etc/passwd", "invalid_image_url"),
        ("~/page.png", "invalid_image_url"),
        ("C:\\page.png", "invalid_image_url"),
        ("c:/page.png", "invalid_image_url"),
        ("\\\\host\\share\\page.png", "invalid_image_url"),
        ("//example.com/page.png", "invalid_image_url"),
        ("/etc/passwd\0.png", "invalid_image_url"),
        (ENCODED, "invalid_image_url"),
        # a file URL without an absolute path on this machine
        ("file:", "invalid_image_url"),
        ("file://", "invalid_image_url"),
        ("file:page.png", "invalid_image_url"),
        ("file:../page.png", "invalid_image_url"),
        ("file:\\\\host\\page.png", "invalid_image_url"),
        ("file://page.png", "invalid_image_url"),
        ("file://example.com/page.png", "invalid_image_url"),
        ("file://user@localhost/page.png", "invalid_image_url"),
        ("file://localhost:80/page.png", "invalid_image_url"),
        ("file://[::1/page.png", "invalid_image_url"),
        ("file:///page.png?x=1", "invalid_image_url"),
        ("file:///page.png#x", "invalid_image_url"),
        ("file:///page.png%00", "invalid_image_url"),
        ("file:///page\0.png", "invalid_image_url"),
        ("file:///%ff.png", "invalid_image_url"),
        ("file:///\ud800.png", "invalid_image_url"),
        ("file:///%ed%a0%80.png", "invalid_image_url"),
        # other schemes
        ("ftp://example.com/a.png", "invalid_image_url"),
        ("gopher://example.com/", "invalid_image_url"),
        ("javascript:alert(1)", "invalid_image_url"),
        ("s3://bucket/key", "invalid_image_url"),
        ("ssh+git://host/x", "invalid_image_url"),
        ("blob:https://example.com/1", "invalid_image_url"),
        ("unix:/run/docker.sock", "invalid_image_url"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_everything_else_is_refused_by_name(url: str, code: str) -> None:
    error = refusal(url)
    assert error.code == code
    assert len(error.message) < 250


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("url", ["/home/me/secret.png", "secret.png"])
def test_a_path_is_told_what_to_do_instead(url: str, kind: MediaKind) -> None:
    message = refusal(url, kind).message
    assert "never opens a client's local path" in message
    assert EXAMPLES[kind] in message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xe0\0\x10JFIF\0\1",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"GIF89a" + bytes(12),
        b"RIFF" + bytes(12),
        b"%PDF-1.7\n1 0 obj",
        b"\0\0\0\x20ftypisom\0\0\2\0",
        b"\x1aE\xdf\xa3" + bytes(12),
        bytes(range(256)) * 2,
    ],
)
def test_base64_without_a_data_url_is_told_that_it_is_that(kind: MediaKind, data: bytes) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.encodebytes):
        message = refusal(encode(data).decode(), kind).message
        assert "base64 without its data URL" in message
        assert EXAMPLES[kind] in message


LABELS = (
    "",
    "*/*",
    "application/octet-stream",
    "image/*",
    "image/heic",
    "image/mpo",
    "image/pjpeg",
    "image/png/x",
    "image/svg+xml",
    "text/html",
    "video/3gpp",
    "video/matroska",
    "video/x-msvideo",
    "application/pdf",
    "صورة",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", LABELS)
def test_no_label_matters(kind: MediaKind, label: str) -> None:
    """What it is, its bytes decide, and they are not looked at here."""
    assert inline(f"data:{label};base64,{ENCODED}", kind).encoded() == (ENCODED.encode(),)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "invalid_image_url"),
        ("ftp://example.com/x", "invalid_image_url"),
        ("file:x", "invalid_image_url"),
        ("data:{type};base64", "invalid_image_url"),
        ("data:{type};base64,", "empty_image_file"),
        ("data:{type};base64,AAAAA", "invalid_base64_image"),
        ("data:{type};base64,AA\u0660A", "invalid_base64_image"),
        ("data:{type},AAAA", "invalid_base64_image"),
        ("data:{type};base64,AAAAAAAA", "image_file_too_large"),
    ],
)
def test_each_kind_has_codes_of_its_own(kind: MediaKind, url: str, code: str) -> None:
    media_type = EXAMPLES[kind].removeprefix("data:").partition(";")[0]
    expected = invalid_media(kind, "", code=code)  # type: ignore[arg-type]
    assert refusal(url.replace("{type}", media_type), kind, max_bytes=5).code == expected.code


@pytest.mark.parametrize("kind", KINDS)
def test_the_errors_that_others_raise_are_of_the_same_kinds(kind: MediaKind) -> None:
    for error, code, words in (
        (too_large(kind, 20 << 20, PARAM), "image_file_too_large", "20 MiB"),
        (too_large(kind, 1000, PARAM), "image_file_too_large", "1000 bytes"),
        (too_large_together(kind, 3 << 19, PARAM), "image_file_too_large", "1.5 MiB together"),
        (bad_base64(kind, PARAM), "invalid_base64_image", "not valid base64"),
    ):
        assert type(error) is ERRORS[kind]
        assert error.code == invalid_media(kind, "", code=code).code  # type: ignore[arg-type]
        assert error.param == PARAM
        assert words in error.message


@pytest.mark.parametrize(
    "url",
    [
        ENCODED,
        "data:image/png;base64" + ENCODED,
        "data:" + ENCODED,
        "data:" + ENCODED[:40] + ",",
        "data:image/png;base64,\u0660" + ENCODED[1:],
        "file:" + ENCODED,
        "file:///" + ENCODED + "?x",
        "x" + ENCODED + ":",
    ],
)
def test_no_message_repeats_the_payload(url: str) -> None:
    message = refusal(url).message.lower()
    assert not any(ENCODED[i : i + 12].lower() in message for i in range(200))


URLS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", " ", "data:", "data:image/png;base64,", "file:", "file:///", "http:", "HTTP://", "x:"]),
        st.text(st.sampled_from("AZaz09+/=%,;:@?#[]\\. \n\0") | st.characters(codec=None), max_size=40),
    ),
)


@settings(deadline=None)
@given(URLS, st.sampled_from(KINDS))
def test_whatever_comes_is_understood_or_refused_in_so_many_words(url: str, kind: MediaKind) -> None:
    with suppress(ERRORS[kind]):
        match parse(url, kind):
            case Inline() as content:
                assert 0 < content.size <= len(b"".join(content.encoded()))
            case Local(path):
                assert path.startswith("/")


@pytest.mark.timeout(20)
@pytest.mark.parametrize("filler", [" ", "\n", "=", ",", ";", "%", "a", "[", "/"])
def test_a_huge_url_takes_little_time(filler: str) -> None:
    for start in ("data:image/png;base64,", "data:", "file:///", "http://", "a", ""):
        with suppress(BadRequest):
            parse(start + filler * 5_000_000, max_bytes=1 << 20)
