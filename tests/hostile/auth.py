"""Ways in without a right key; sent to a server that asks for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.e2e.asking import PATH
from tests.hostile.case import Answer, Case
from tests.hostile.house import House
from tests.hostile.wire import HELLO

KEY: Final = "ain-a-key-of-the-hostile-tests-0"
HEAD: Final = (
    f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n".encode()
)


def _with(*headers: bytes, path: bytes | None = None) -> Callable[[House], Answer]:
    head = HEAD if path is None else HEAD.replace(PATH.encode(), path)
    lines = b"".join(header + b"\r\n" for header in headers)
    return lambda house: house.raw(head + lines + b"content-length: %d\r\n\r\n" % len(HELLO) + HELLO)


def _get(path: bytes, *headers: bytes) -> Callable[[House], Answer]:
    lines = b"".join(header + b"\r\n" for header in (b"host: localhost", b"connection: close", *headers))
    return lambda house: house.raw(b"GET " + path + b" HTTP/1.1\r\n" + lines + b"\r\n")


def _in_a_trailer(house: House) -> Answer:
    content = b"%x\r\n%b\r\n0\r\nauthorization: Bearer %b\r\n\r\n" % (len(HELLO), HELLO, KEY.encode())
    return house.raw(HEAD + b"transfer-encoding: chunked\r\n\r\n" + content)


REFUSED: Final = {
    "no header": _with(),
    "an empty header": _with(b"authorization:"),
    "no key": _with(b"authorization: Bearer"),
    "spaces for a key": _with(b"authorization: Bearer      "),
    "a wrong key": _with(b"authorization: Bearer ain-a-key-of-the-hostile-tests-1"),
    "a shorter key": _with(f"authorization: Bearer {KEY[:-1]}".encode()),
    "a longer key": _with(f"authorization: Bearer {KEY}0".encode()),
    "a key in capitals": _with(f"authorization: Bearer {KEY.upper()}".encode()),
    "a key and another": _with(f"authorization: Bearer {KEY} {KEY}".encode()),
    "a key without a scheme": _with(f"authorization: {KEY}".encode()),
    "Basic": _with(b"authorization: Basic cm9vdDpyb290"),
    "Basic with the key": _with(f"authorization: Basic {KEY}".encode()),
    "Digest": _with(b'authorization: Digest username="root"'),
    "a hash of the key": _with(b"authorization: Bearer sha256:" + b"0" * 64),
    "60 KB": _with(b"authorization: Bearer " + b"a" * 60_000),
    "not ASCII": _with(b"authorization: Bearer \xff\xfe\xc3\xa9\xd9\x85"),
    "a NUL": _with(b"authorization: Bearer a%00"),
    "a tab": _with(f"authorization: Bearer\t{KEY}".encode()),
    "another header": _with(f"x-api-key: {KEY}".encode(), f"api-key: {KEY}".encode(), f"cookie: key={KEY}".encode()),
    "in the address": _with(path=f"{PATH}?api_key={KEY}&key={KEY}&access_token={KEY}".encode()),
    "an open path as a prefix": _with(path=b"//health/../v1/chat/completions"),
    "models": _get(b"/v1/models"),
    "metrics": _get(b"/metrics"),
    "the OpenAPI page": _get(b"/openapi.json"),
    "an address that is not there": _get(b"/v1/nothing"),
    "health with more behind it": _get(b"/health/../v1/models"),
    "health in capitals": _get(b"/HEALTH"),
    "health with a slash": _get(b"/health/"),
    "a whole address": _get(b"http://localhost/health/../metrics"),
    "behind a proxy, it says": _get(b"/metrics", b"x-forwarded-for: 127.0.0.1", b"x-original-url: /health"),
}

AMBIGUOUS: Final = {
    "two headers, the wrong one first": _with(b"authorization: Bearer wrong", f"authorization: Bearer {KEY}".encode()),
    "two headers, the right one first": _with(f"authorization: Bearer {KEY}".encode(), b"authorization: Bearer wrong"),
    "the right key twice": _with(*[f"authorization: Bearer {KEY}".encode()] * 2),
    "an open path as a second host": _with(b"host: localhost/health?"),
}
"""What one reads so and another otherwise is no request."""

CASES: Final[dict[str, Case]] = {
    **{name: Case(send, 401, "invalid_api_key") for name, send in REFUSED.items()},
    **{name: Case(send, 400, "invalid_http") for name, send in AMBIGUOUS.items()},
    "the right key in a trailer": Case(_in_a_trailer, 401, "invalid_api_key"),
    "70 KB": Case(_with(b"authorization: Bearer " + b"a" * 70_000), 431, "invalid_http"),
    "the right key": Case(_with(f"authorization: Bearer {KEY}".encode()), 200),
    "the right key, oddly written": Case(_with(f"AUTHORIZATION:   bEaReR   {KEY}  ".encode()), 200),
    "health": Case(_get(b"/health"), 200),
}
