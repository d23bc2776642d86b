"""The fetcher against real servers on loopback and a resolver that says what each test wants."""

from __future__ import annotations

import asyncio
import base64
import datetime
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest

from server.errors import BadRequest, InvalidFile, InvalidImage, InvalidVideo, MediaKind
from server.media.fetching.fetch import Fetcher, FetchLimits, Order
from server.media.fetching.freshness import NOTHING
from server.media.sources import Remote
from tests.unit.media.web import (
    BODY,
    CERTIFICATES,
    Names,
    Respond,
    Site,
    answer,
    fetching,
    paths,
    proxying,
    redirect,
    serving,
)

pytestmark = pytest.mark.timeout(20)

PARAM = "messages[0].content[0].image_url.url"
MIB = 1 << 20


def ordered(url: str, kind: MediaKind = "image", max_bytes: int = 20 * MIB, **options: Any) -> Order:
    return Order(Remote(url, kind, PARAM), max_bytes, **({"spend": lambda size: None} | options))


async def get(fetcher: Fetcher, url: str, **options: Any) -> bytes | None:
    return (await fetcher.get(ordered(url, **options))).body


async def refusal(fetcher: Fetcher, url: str, code: str, **options: Any) -> str:
    with pytest.raises(InvalidImage) as caught:
        await get(fetcher, url, **options)
    assert caught.value.code == code, caught.value.message
    assert caught.value.param == PARAM
    message = caught.value.message
    assert len(message) < 200
    assert not any(address in message for address in ("127.0", "10.0", "169.254", "::"))
    return message


# ---- What works -------------------------------------------------------------------------------------


async def test_a_picture_is_fetched_with_its_own_host_name_and_nothing_of_ours() -> None:
    async with serving(answer()) as site, fetching(site) as fetcher:
        assert await get(fetcher, f"{site.url}/a/b%20c.png?x=1#part") == BODY
        head = site.requests[0].decode().lower()
        assert head.startswith("get /a/b%20c.png?x=1 http/1.1\r\n")
        assert f"\r\nhost: site.test:{site.port}\r\n" in head
        assert "\r\naccept-encoding: identity\r\n" in head
        assert not any(name in head for name in ("cookie", "authorization", "referer", "proxy"))


@pytest.mark.parametrize("path", ["/my file.png", "/my file.png?name=a b", "/a%20b c", "/ملف جديد.png"])
async def test_spaces_in_a_url_or_in_a_redirect_are_taken_as_browsers_take_them(path: str) -> None:
    expected = quote(path, safe="/?=%").encode()

    async def respond(head: bytes, writer: asyncio.StreamWriter) -> None:
        await (redirect(path) if head.startswith(b"GET /start ") else answer())(head, writer)

    async with serving(respond) as site, fetching(site) as fetcher:
        assert await get(fetcher, site.url + path) == BODY
        assert await get(fetcher, f"{site.url}/start") == BODY
        asked = [head.split(b" ")[1] for head in site.requests]
    assert asked == [expected, b"/start", expected]


async def test_it_calls_itself_what_the_operator_says() -> None:
    async with serving(answer()) as site:
        for options, name in (({}, b"ain-server"), ({"user_agent": "archive/1.0 (ops@example.org)"}, None)):
            async with fetching(site, **options) as fetcher:
                await get(fetcher, site.url)
            expected = name or options["user_agent"].encode()
            assert b"\r\nuser-agent: %b\r\n" % expected in site.requests[-1].replace(b"User-Agent", b"user-agent")


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with serving(answer()) as site, fetching(site) as fetcher:
        assert await get(fetcher, site.url) == BODY


async def test_a_chunked_body_and_one_that_ends_with_the_connection_arrive_whole() -> None:
    async def chunked(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n2\r\nef\r\n0\r\n\r\n")
        await writer.drain()

    async def until_closed(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nabcdef")
        await writer.drain()

    for respond in (chunked, until_closed):
        async with serving(respond) as site, fetching(site) as fetcher:
            assert await get(fetcher, site.url) == b"abcdef"


async def test_the_declared_type_is_not_trusted_and_not_needed() -> None:
    async with serving(answer(BODY, "Content-Type: text/html")) as site, fetching(site) as fetcher:
        assert await get(fetcher, site.url) == BODY


async def test_cookies_never_pass_from_one_fetch_to_the_next() -> None:
    async with serving(answer(BODY, "Set-Cookie: caller=first; Path=/")) as site, fetching(site) as fetcher:
        await get(fetcher, site.url)
        await get(fetcher, site.url)
        assert b"cookie" not in site.requests[1].lower()


async def test_the_next_address_is_tried_when_the_first_does_not_answer() -> None:
    names = Names(site_test=[["127.0.0.2", "127.0.0.1"]])
    async with serving(answer()) as site, fetching(site, names, allowed_networks=("127.0.0.0/8",)) as fetcher:
        assert await get(fetcher, site.url) == BODY


async def test_pieces_are_reported_as_they_arrive_and_may_be_stopped() -> None:
    seen: list[int] = []

    def stop(size: int) -> None:
        raise InvalidImage("enough", code="image_file_too_large", param="all")

    async with serving(answer()) as site, fetching(site) as fetcher:
        await get(fetcher, site.url, spend=seen.append)
        assert sum(seen) == len(BODY)
        with pytest.raises(InvalidImage, match="enough"):
            await get(fetcher, site.url, spend=stop)
        assert await get(fetcher, site.url) == BODY


async def test_only_so_many_fetches_run_at_once() -> None:
    running, most = 0, 0

    async def slow(head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        await answer()(head, writer)

    async with serving(slow) as site, fetching(site, concurrency=2) as fetcher, anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(get, fetcher, site.url)
    assert most == 2


@pytest.mark.parametrize(
    ("kind", "accept"), [("image", "image/png"), ("video", "video/mp4"), ("file", "application/pdf")]
)
async def test_each_kind_asks_for_what_it_is(kind: MediaKind, accept: str) -> None:
    async with serving(answer()) as site, fetching(site) as fetcher:
        assert await get(fetcher, site.url, kind=kind) == BODY
        head = site.requests[0].decode().lower()
        assert accept in head.partition("\r\naccept: ")[2].partition("\r\n")[0]


async def test_the_resolver_of_the_system_is_asked_where_no_other_is_named_and_no_more_believed() -> None:
    async with serving(answer()) as site:
        for networks, refused in ((("127.0.0.0/8", "::1"), False), ((), True)):
            limits = FetchLimits(allowed_networks=networks, ports=(site.port,))
            fetcher = Fetcher(limits, ssl_context=CERTIFICATES)
            if refused:
                await refusal(fetcher, f"http://localhost:{site.port}/", "invalid_image_url")
            else:
                assert await get(fetcher, f"http://localhost:{site.port}/") == BODY
            await fetcher.aclose()
        assert len(site.requests) == 1


# ---- What may be used again -------------------------------------------------------------------------

ETAG = ((b"If-None-Match", b'"1"'),)


async def test_a_reply_tells_how_long_it_may_be_used() -> None:
    headers = ("Cache-Control: max-age=60", "Cache-Control: public", 'ETag: "1"', "Age: 20")
    async with serving(answer(BODY, *headers)) as site, fetching(site) as fetcher:
        before = time.monotonic()
        freshness = (await fetcher.get(ordered(site.url))).freshness
        assert before + 40 <= freshness.until <= time.monotonic() + 40
        assert (freshness.etag, freshness.storable) == ('"1"', True)


async def test_what_no_header_speaks_of_is_not_kept() -> None:
    async with serving(answer()) as site, fetching(site) as fetcher:
        assert not (await fetcher.get(ordered(site.url))).freshness.worth_keeping


async def test_validators_are_sent_and_an_answer_that_all_holds_has_no_body() -> None:
    unchanged = answer(b"", "Cache-Control: max-age=60", status="304 Not Modified")
    async with serving(unchanged) as site, fetching(site) as fetcher:
        reply = await fetcher.get(ordered(site.url, validators=ETAG))
        assert reply.body is None
        assert reply.freshness.until > time.monotonic()
        assert b'\r\nIf-None-Match: "1"\r\n' in site.requests[0]


async def test_what_has_changed_comes_whole() -> None:
    async with serving(answer(BODY, 'ETag: "2"')) as site, fetching(site) as fetcher:
        reply = await fetcher.get(ordered(site.url, validators=ETAG))
        assert (reply.body, reply.freshness.etag) == (BODY, '"2"')


async def test_what_a_redirect_leads_to_is_good_for_this_once() -> None:
    headers = ("Cache-Control: max-age=60", 'ETag: "1"')
    respond = paths(start=redirect("/end", "302 Found", *headers), end=answer(BODY, *headers))
    async with serving(respond) as site, fetching(site) as fetcher:
        reply = await fetcher.get(ordered(f"{site.url}/start"))
        assert (reply.body, reply.freshness) == (BODY, NOTHING)
        assert (await fetcher.get(ordered(f"{site.url}/end"))).freshness.worth_keeping


async def test_validators_do_not_follow_a_redirect_to_other_bytes() -> None:
    """The same ETag there would be an accident, and to believe it would serve the wrong picture."""
    respond = paths(start=redirect("/end"), end=answer(BODY))
    async with serving(respond) as site, fetching(site) as fetcher:
        assert (await fetcher.get(ordered(f"{site.url}/start", validators=ETAG))).body == BODY
        assert [b"If-None-Match" in request for request in site.requests] == [True, False]
    respond = paths(start=redirect("/end"), end=answer(b"", status="304 Not Modified"))
    async with serving(respond) as site, fetching(site) as fetcher:
        message = await refusal(fetcher, f"{site.url}/start", "failed_to_download_image", validators=ETAG)
        assert "304" in message


# ---- Kinds of errors --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error", "codes"),
    [
        ("image", InvalidImage, ("invalid_image_url", "failed_to_download_image", "image_file_too_large")),
        ("video", InvalidVideo, ("invalid_video_url", "failed_to_download_video", "video_too_large")),
        ("file", InvalidFile, ("invalid_file_url", "failed_to_download_file", "file_too_large")),
    ],
)
async def test_each_kind_has_an_error_of_its_own(kind: MediaKind, error: type[BadRequest], codes: list[str]) -> None:
    respond = paths(large=answer(), missing=answer(b"", status="404 Not Found"), inside=redirect("http://10.0.0.1/"))
    nouns = {"image": "picture", "video": "clip", "file": "document"}
    async with serving(respond) as site, fetching(site, ports=(80, site.port)) as fetcher:
        for path, code in zip(("inside", "missing", "large"), codes, strict=True):
            with pytest.raises(error) as caught:
                await get(fetcher, f"{site.url}/{path}", kind=kind, max_bytes=5)
            assert (caught.value.code, caught.value.param) == (code, PARAM)
            assert path == "inside" or f"The {nouns[kind]} " in caught.value.message


# ---- Addresses --------------------------------------------------------------------------------------

PRIVATE_SPELLINGS = [
    "http://127.0.0.1/",
    "http://127.0.0.1:80/",
    "http://127.000.000.001/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://00000177.0.0.1/",
    "http://0/",
    "http://0x/",
    "http://0.0.0.0/",
    "http://127.0.0.1./",
    "http://127.1./",
    "http://127.0.0.1../",
    "http://256.256.256.256/",
    "http://1.2.3.4.5/",
    "http://4294967297/",
    "http://１２７.０.０.１/",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://127．0．0．1/",
    "http://１２７．１/",
    "http://٠.٠.٠.٠/",
    "http://%31%32%37.0.0.1/",
    "http://127%2e0%2e0%2e1/",
    "http://localhost%00.example.com/",
    "http://[::1]/",
    "http://[::]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[fec0::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[::1/",
    "http://::1/",
    "http://[v1.x]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://100.100.100.200/",
    "http://10.0.0.1/",
    "http://192.168.0.1/",
    "http://172.16.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://user@127.0.0.1/",
    "http://user:secret@public.test/",
    "http://public.test@127.0.0.1/",
    "http://@127.0.0.1/",
    "http://@public.test/",
    "http://public.test:80@127.0.0.1/",
    "http://public.test%40127.0.0.1/",
    "http://public.test\\@127.0.0.1/",
    "http://127.0.0.1\\@public.test/",
    "http:\\\\127.0.0.1/",
    "http://127.0.0.1\\.public.test/",
    "http://public.test#@127.0.0.1\\/",
    "http://public.test\t@127.0.0.1/",
    "http://127.0.0.1\n.public.test/",
    "http://public.test\r\nHost:127.0.0.1/",
    "http://public.test/ HTTP/1.1\r\nX: y",
    "http://public.test/\0",
    "http://ｌocalhost\u00ad/",
    "http://localhost/",
    "http://LOCALHOST/",
    "http://localhost./",
    "http://any.localhost/",
    "http://inside.test/",
    "http://INSIDE.test./",
    "http://inside6.test/",
    "http://mixed.test/",
    "http://mapped.test/",
    "http://zone.test/",
]


@pytest.mark.parametrize("url", PRIVATE_SPELLINGS, ids=ascii)
async def test_no_spelling_leads_inside(url: str) -> None:
    names = Names(
        public_test=[["93.184.215.14"]],
        localhost=[["127.0.0.1", "::1"]],
        any_localhost=[["127.0.0.1"]],
        inside_test=[["10.0.0.1"]],
        inside6_test=[["fd00::1"]],
        mixed_test=[["93.184.215.14", "2606:4700::1111", "10.0.0.1"]],
        mapped_test=[["::ffff:169.254.169.254"]],
        zone_test=[["fe80::1%eth0"]],
    )
    async with fetching(names=names, allowed_networks=()) as fetcher:
        await refusal(fetcher, url, "invalid_image_url")
    assert "public.test" not in names.asked


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.png",
        "http:public.test",
        "http:/public.test",
        "https://?x",
        "http://.",
        "http://..",
        "http://.public.test/",
        "http://a..b/",
        "http://-a.test/",
        "http://a b.test/",
        "http://a,b.test/",
        "http://*.test/",
        "http://" + "a" * 64 + ".test/",
        "http://" + "a." * 130 + "test/",
        "http://public.test/" + "a" * 9000,
        "http://public.test/\ud800",
        "http://\ud800.test/",
        "http://xn--a\u0661.test/",
        "ftp://public.test/",
        "file:///etc/passwd",
        "gopher://public.test/",
        "public.test/a.png",
        "",
    ],
    ids=ascii,
)
async def test_what_is_no_web_address_is_refused(url: str) -> None:
    names = Names(public_test=[["93.184.215.14"]])
    async with fetching(names=names) as fetcher:
        await refusal(fetcher, url, "invalid_image_url")
    assert names.asked == []


@pytest.mark.parametrize("port", ["22", "6379", "8080", "0", "65536", "-1", "99999999999", "x", "9" * 5000])
async def test_odd_ports_are_refused(port: str) -> None:
    names = Names(public_test=[["93.184.215.14"]])
    async with fetching(names=names) as fetcher:
        await refusal(fetcher, f"http://public.test:{port}/", "invalid_image_url")
    assert names.asked == []


async def test_a_public_name_is_dialled_at_the_address_that_was_checked() -> None:
    """Rebinding: the name answers well once and badly ever after; it is asked only once."""
    names = Names(site_test=[["127.0.0.1"], ["10.0.0.1"]])
    async with serving(answer()) as site, fetching(site, names) as fetcher:
        assert await get(fetcher, site.url) == BODY
        assert names.asked == ["site.test"]
        await refusal(fetcher, site.url, "invalid_image_url")


async def test_one_bad_answer_among_good_ones_refuses_the_name_before_any_is_dialled() -> None:
    names = Names(site_test=[["127.0.0.1", "10.0.0.1"]])
    async with serving(answer()) as site, fetching(site, names) as fetcher:
        await refusal(fetcher, site.url, "invalid_image_url")
        assert site.requests == []


async def test_a_name_without_addresses_fails() -> None:
    async with fetching(names=Names(empty_test=[[]])) as fetcher:
        for url in ("http://empty.test/", "http://unknown.test/"):
            assert "does not resolve" in await refusal(fetcher, url, "failed_to_download_image")


async def test_a_host_that_the_operator_names_may_be_inside_and_on_any_port() -> None:
    async with serving(answer()) as site:
        for entry in ("site.test", f"SITE.test.:{site.port}"):
            async with fetching(allowed_hosts=(entry,), allowed_networks=()) as fetcher:
                assert await get(fetcher, f"http://site.test.:{site.port}/") == BODY
        async with fetching(allowed_hosts=("127.0.0.1",), allowed_networks=()) as fetcher:
            assert await get(fetcher, f"http://127.0.0.1:{site.port}/") == BODY
        async with fetching(allowed_hosts=("site.test:1",), allowed_networks=()) as fetcher:
            await refusal(fetcher, site.url, "invalid_image_url")


# ---- Redirects --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
async def test_redirects_are_followed_also_relative_ones(status: str) -> None:
    async def respond(head: bytes, writer: asyncio.StreamWriter) -> None:
        await (answer() if b"GET /b/d.png " in head else redirect("../b/./d.png", status))(head, writer)

    async with serving(respond) as site, fetching(site) as fetcher:
        assert await get(fetcher, f"{site.url}/a/c.png") == BODY


@pytest.mark.parametrize(
    "location",
    [
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/",
        "http://inside.test/",
        "//inside.test/",
        "//10.0.0.1/",
        "http://2130706433/",
        "http://user@site.test/",
        "http://[",
        "file:///etc/passwd",
        "ftp://site.test/",
        "data:image/png;base64,AAAA",
        "http://site.test:22/",
    ],
)
async def test_a_redirect_is_checked_like_the_first_url(location: str) -> None:
    names = Names(site_test=[["127.0.0.1"]], inside_test=[["10.0.0.1"]])
    async with serving(redirect(location)) as site, fetching(site, names, ports=(80, site.port)) as fetcher:
        await refusal(fetcher, site.url, "invalid_image_url")
        assert len(site.requests) == 1


@pytest.mark.parametrize("location", ["", "http://a\\b/", "http://x\x01y/", "/" + "a" * 9000])
async def test_a_redirect_to_nowhere_fails(location: str) -> None:
    async with serving(redirect(location)) as site, fetching(site) as fetcher:
        await refusal(fetcher, site.url, "failed_to_download_image")


async def test_a_redirect_loop_ends() -> None:
    async with serving(redirect("/again")) as site, fetching(site, max_redirects=3) as fetcher:
        assert "more than 3 times" in await refusal(fetcher, site.url, "failed_to_download_image")
        assert len(site.requests) == 4


# ---- Servers that misbehave -------------------------------------------------------------------------


def forever(head: bytes, piece: bytes, pause: float) -> Respond:
    async def respond(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return respond


@pytest.mark.parametrize(
    "head",
    [
        b"",  # headers drop by drop
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
async def test_one_byte_at_a_time_hits_the_deadline(head: bytes) -> None:
    async with serving(forever(head, b"H", 0.05)) as site, fetching(site, timeout_s=0.3) as fetcher:
        assert "longer than 0.3 seconds" in await refusal(fetcher, site.url, "failed_to_download_image")


async def test_endless_interim_replies_hit_the_deadline() -> None:
    respond = forever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", 0.01)
    async with serving(respond) as site, fetching(site, timeout_s=0.3) as fetcher:
        await refusal(fetcher, site.url, "failed_to_download_image")


async def test_the_deadline_covers_resolving_and_redirects_together() -> None:
    async def hesitant(head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.15)
        await redirect("/on")(head, writer)

    async def stuck(host: str, port: int) -> Sequence[str]:
        await anyio.sleep(60)
        return []

    async with serving(hesitant) as site, fetching(site, timeout_s=0.35, max_redirects=9) as fetcher:
        assert "longer than" in await refusal(fetcher, site.url, "failed_to_download_image")
    fetcher = Fetcher(FetchLimits(timeout_s=0.1), resolver=stuck)
    assert "longer than" in await refusal(fetcher, "http://slow.test/", "failed_to_download_image")
    await fetcher.aclose()


async def test_an_endless_body_stops_at_the_cap() -> None:
    sent = 0

    async def respond(_: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 65536)
            sent += 65536
            await writer.drain()

    async with serving(respond) as site, fetching(site) as fetcher:
        assert "1 MiB" in await refusal(fetcher, site.url, "image_file_too_large", max_bytes=MIB)
    assert sent < 30 << 20


async def test_an_announced_size_over_the_cap_is_refused_unread() -> None:
    respond = forever(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"", 1)
    async with serving(respond) as site, fetching(site) as fetcher:
        await refusal(fetcher, site.url, "image_file_too_large")


async def test_the_cap_is_exact() -> None:
    async def unannounced(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 1000)
        await writer.drain()

    for respond in (answer(b"x" * 1000), unannounced):
        async with serving(respond) as site, fetching(site) as fetcher:
            assert await get(fetcher, site.url, max_bytes=1000) == b"x" * 1000
            await refusal(fetcher, site.url, "image_file_too_large", max_bytes=999)


@pytest.mark.parametrize(
    "encoding",
    ["aws-chunked", "AWS-Chunked", "binary", "utf-8", "UTF-8", "none", "identity", "", "aws-chunked, identity"],
)
async def test_encodings_that_compress_nothing_are_passed_over(encoding: str) -> None:
    """What S3 and others keep of how a file was uploaded."""
    async with serving(answer(BODY, f"Content-Encoding: {encoding}")) as site, fetching(site) as fetcher:
        assert await get(fetcher, site.url) == BODY


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "identity, gzip", "aws-chunked,gzip", "x"])
async def test_compressed_bodies_are_refused(encoding: str) -> None:
    async with serving(answer(BODY, f"Content-Encoding: {encoding}")) as site, fetching(site) as fetcher:
        assert "compressed" in await refusal(fetcher, site.url, "failed_to_download_image")


@pytest.mark.parametrize("status", ["204 No", "206 Partial", "304 Not Modified", "404 Not Found", "500 Oh", "503 Busy"])
async def test_any_status_but_200_fails_and_is_named(status: str) -> None:
    async with serving(answer(b"", status=status)) as site, fetching(site) as fetcher:
        assert status[:3] in await refusal(fetcher, site.url, "failed_to_download_image")


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\0\0\0\0",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000,
    ],
)
async def test_broken_replies_fail(reply: bytes) -> None:
    async def respond(_: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    async with serving(respond) as site, fetching(site) as fetcher:
        assert "connection failed" in await refusal(fetcher, site.url, "failed_to_download_image")


async def test_a_closed_port_fails() -> None:
    async with serving(answer()) as site:
        pass
    async with fetching(site) as fetcher:
        assert "connection failed" in await refusal(fetcher, site.url, "failed_to_download_image")


async def test_a_fetch_can_be_cancelled_and_leaves_its_slot() -> None:
    async def respond(head: bytes, writer: asyncio.StreamWriter) -> None:
        await (forever(b"", b"H", 0.05) if b"GET /slow " in head else answer())(head, writer)

    async with serving(respond) as site, fetching(site, concurrency=1) as fetcher:
        with anyio.move_on_after(0.1) as scope:
            await get(fetcher, f"{site.url}/slow")
        assert scope.cancelled_caught
        assert await get(fetcher, site.url) == BODY


# ---- TLS --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A self-signed certificate for site.test, with its key, in one PEM file."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "site.test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("site.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "site.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    return str(path)


def tls_server(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def test_tls_asks_for_the_name_in_the_url_and_checks_it(certificate: str) -> None:
    asked: list[str | None] = []
    server_context = tls_server(certificate)
    server_context.sni_callback = lambda _, name, __: asked.append(name)
    trusting = ssl.create_default_context(cafile=certificate)
    names = Names(site_test=[["127.0.0.1"]], other_test=[["127.0.0.1"]])
    async with serving(answer(), server_context) as site:
        async with fetching(site, names, trusting) as fetcher:
            assert await get(fetcher, f"https://site.test:{site.port}/") == BODY
            wrong_name = f"https://other.test:{site.port}/"
            assert "TLS" in await refusal(fetcher, wrong_name, "failed_to_download_image")
        async with fetching(site, names, None) as fetcher:
            unknown_signer = f"https://site.test:{site.port}/"
            assert "TLS" in await refusal(fetcher, unknown_signer, "failed_to_download_image")
    assert asked == ["site.test", "other.test", "site.test"]
    assert len(site.requests) == 1


async def test_https_is_never_redirected_to_http(certificate: str) -> None:
    trusting = ssl.create_default_context(cafile=certificate)
    async with serving(answer()) as plain:
        secure = serving(redirect(plain.url), tls_server(certificate))
        async with secure as site, fetching(ports=(site.port, plain.port), context=trusting) as fetcher:
            message = await refusal(fetcher, f"https://site.test:{site.port}/", "invalid_image_url")
            assert "https to http" in message
        assert plain.requests == []


async def test_an_authority_of_the_operator_is_trusted_beside_the_public_ones(certificate: str) -> None:
    async with (
        serving(answer(), tls_server(certificate)) as site,
        fetching(site, context=None, ca_file=certificate) as fetcher,
    ):
        assert await get(fetcher, f"https://site.test:{site.port}/") == BODY


# ---- Through a proxy --------------------------------------------------------------------------------


def through(proxy: Site, user: str = "") -> dict[str, Any]:
    return {"proxy": f"http://{user}127.0.0.1:{proxy.port}", "allowed_networks": ()}


async def test_everything_is_fetched_through_the_operators_proxy(certificate: str) -> None:
    trusting = ssl.create_default_context(cafile=certificate)
    names = Names(site_test=[["93.184.216.34"]])
    async with (
        serving(answer()) as site,
        proxying(site) as proxy,
        fetching(site, names, **through(proxy, "user:p%40ss@")) as fetcher,
    ):
        assert await get(fetcher, f"{site.url}/a b") == BODY
    [head] = proxy.requests
    assert head.startswith(b"GET http://site.test:%d/a%%20b HTTP/1.1\r\n" % site.port)
    assert b"\r\nProxy-Authorization: Basic " + base64.b64encode(b"user:p@ss") in head
    async with (
        serving(answer(), tls_server(certificate)) as site,
        proxying(site) as proxy,
        fetching(site, names, trusting, **through(proxy)) as fetcher,
    ):
        assert await get(fetcher, f"https://site.test:{site.port}/") == BODY
    assert proxy.requests[0].startswith(b"CONNECT site.test:%d HTTP/1.1\r\n" % site.port)
    assert b"authorization" not in site.requests[0].lower()


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "http://inside.test/", "http://[::1]/", "http://169.254.169.254/"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_is_not_asked_for_what_is_known_to_lie_inside(scheme: str, url: str) -> None:
    names = Names(inside_test=[["93.184.216.34", "10.0.0.1"]])
    async with serving(answer()) as site, proxying(site) as proxy:
        async with fetching(names=names, **through(proxy)) as fetcher:
            await refusal(fetcher, url.replace("http", scheme), "invalid_image_url")
            await refusal(fetcher, "http://localhost:22/", "invalid_image_url")
        assert proxy.requests == []


async def test_a_redirect_is_checked_before_the_proxy_is_asked_again() -> None:
    names = Names(site_test=[["93.184.216.34"]])
    async with serving(redirect("http://10.0.0.1/")) as site, proxying(site) as proxy:
        async with fetching(site, names, **(through(proxy) | {"ports": (80, site.port)})) as fetcher:
            await refusal(fetcher, site.url, "invalid_image_url")
        assert len(proxy.requests) == 1


async def test_a_name_that_only_the_proxy_knows_is_left_to_it() -> None:
    async with serving(answer()) as site, proxying(site) as proxy, fetching(site, Names(), **through(proxy)) as fetcher:
        assert await get(fetcher, site.url) == BODY


async def test_what_the_proxy_refuses_fails_in_words(certificate: str) -> None:
    names = Names(site_test=[["93.184.216.34"]])
    async with (
        serving(answer()) as site,
        proxying(site, refusing=True) as proxy,
        fetching(site, names, **through(proxy)) as fetcher,
    ):
        assert "status 403" in await refusal(fetcher, site.url, "failed_to_download_image")
        secure = f"https://site.test:{site.port}/"
        assert "proxy of this server" in await refusal(fetcher, secure, "failed_to_download_image")


# ---- Mistakes of the operator -----------------------------------------------------------------------


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for content in (b"", b"hello"):
        (tmp_path / "ca.pem").write_bytes(content)
        with pytest.raises(ValueError, match=r"ca\.pem cannot be read"):
            Fetcher(FetchLimits(ca_file=str(tmp_path / "ca.pem")))


@pytest.mark.parametrize("wrong", [{"timeout_s": 0}, {"max_redirects": -1}, {"concurrency": 0}])
def test_limits_that_let_nothing_through_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="limits"):
        FetchLimits(**wrong)
