"""The door itself: states of a connection and what is sent in them, trailers, offers of other protocols, framing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

from tests.api.test_framing import ONE, REFUSED, WITHOUT_END
from tests.hostile.case import Answer, Case, refused, said
from tests.hostile.house import House
from tests.hostile.json_bodies import HELLO
from tests.hostile.packing import MIB
from tests.hostile.wire import POST, raw, sized

LIVE: Final = b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n"
CHUNKED: Final = b"transfer-encoding: chunked\r\n\r\n"
JSON_BYTES: Final = 30 * MIB


def _endless(head: bytes, first: bytes, more: bytes) -> Case:
    """Whatever is sent for ever is answered, or cut, and costs no memory."""

    def send(house: House) -> Answer:
        pieces: Iterator[bytes] = itertools.chain([head + first], itertools.repeat(more, 64 * MIB // len(more)))
        return house.raw(pieces, pause_s=0.0001)

    return Case(send, 400, "invalid_http")


def _after_reply(sent: bytes) -> Case:
    """What is sent behind a request never changes its answer."""
    return Case(lambda house: house.raw(LIVE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + sent), 200)


def _stuck(sent: bytes) -> Case:
    """What never goes on is ended by a timer, with a word or without."""
    return Case(lambda house: house.raw([sent, *itertools.repeat(b"", 10_000)], pause_s=0.05), 0, waits=True)


def _shape(piece: bytes, inside: bytes = b"[%b]") -> Case:
    """Megabytes of it in a field that nobody knows."""

    def send(house: House) -> Answer:
        many = (piece * (JSON_BYTES // len(piece))).rstrip(b",")
        return house.chat(HELLO[:-1] + b',"x":' + inside.replace(b"%b", many) + b"}")

    return Case(send, 400, "invalid_json")


SHAPES: Final = {
    "lists": b"[],",
    "objects": b"{},",
    "numbers": b"1,",
    "words": b"null,",
    "empty strings": b'"",',
    "lists in lists": b"[[[[]]]],",
    "floats": b"1e9,",
}
FIELDS: Final = {"keys": b'"a":1,', "escaped keys": b'"\\u0061":1,', "objects in fields": b'"a":{},'}

TEXTS: Final = {
    "digits": "1" * 200_000,
    "Arabic with marks": "\u0628\u0650\u0633\u0652\u0645\u0650 " * 30_000,
    "emoji": "\U0001f54c" * 60_000,
    "line ends": "\n\r" * 100_000,
    "signs": "!?*&%$" * 40_000,
    "control tokens": "<|im_start|>" * 20_000,
    "letters of all scripts": "".join(map(chr, range(0x100, 0xD800))) * 4,
}
"""Longer than the context, and slow to count."""

CASES: Final[dict[str, Case]] = {
    **{f"text: {name}": refused(said(text), "context_length_exceeded", "messages") for name, text in TEXTS.items()},
    **{f"framing: {name}": raw(sent, status, "invalid_http") for name, (sent, status) in REFUSED.items()},
    **{
        f"one request: {name}": raw(
            sent.replace(b"Host: localhost\r\n", b"Host: localhost\r\nConnection: close\r\n", 1)
            if b"Connection:" not in sent
            else sent.replace(b"Connection: Upgrade", b"Connection: close, Upgrade", 1),
            200,
        )
        for name, sent in ONE.items()
    },
    **{f"without end: {name}": _endless(POST + CHUNKED, *sent) for name, sent in WITHOUT_END.items()},
    **{
        f"behind a reply: {name}": _after_reply(sent)
        for name, sent in {
            "an empty line": b"\r\n",
            "a thousand empty lines": b"\r\n" * 1000,
            "half a head": b"GET / HT",
            "another request": LIVE,
            "a thousand requests": LIVE * 1000,
            "nonsense": b"\x00\xff" * 1000,
            "a chunk": b"5\r\nhello\r\n",
            "a megabyte": b"x" * MIB,
        }.items()
    },
    **{
        f"stuck: {name}": _stuck(sent)
        for name, sent in {
            "at nothing": b"",
            "at an empty line": b"\r\n",
            "in a line": b"GET /he",
            "in a head": b"GET /health/live HTTP/1.1\r\nhost: loc",
        }.items()
    },
    "stuck: in a body": Case(
        lambda house: house.raw([sized()[:-1], *itertools.repeat(b"", 10_000)], pause_s=0.05),
        408,
        "request_timeout",
        waits=True,
    ),
    "stuck: in a chunk": Case(
        lambda house: house.raw([POST + CHUNKED + b"5\r\nhe", *itertools.repeat(b"", 10_000)], pause_s=0.05),
        408,
        "request_timeout",
        waits=True,
    ),
    "stuck: in trailers": Case(
        lambda house: house.raw([POST + CHUNKED + b"0\r\nx: y", *itertools.repeat(b"", 10_000)], pause_s=0.05),
        408,
        "request_timeout",
        waits=True,
    ),
    **{f"JSON: {name}": _shape(piece) for name, piece in SHAPES.items()},
    **{f"JSON: {name}": _shape(piece, b"{%b}") for name, piece in FIELDS.items()},
    "JSON: digits": _shape(b"9", b"%b"),
    "JSON: a list that is never closed": _shape(b"[", b"%b"),
    "JSON: objects that are never closed": _shape(b'{"a":', b"%b"),
}
