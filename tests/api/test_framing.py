"""One connection, many requests: where each ends, what belongs to it, and what is refused (RFC 9110 and 9112)."""

from __future__ import annotations

import contextlib
import json
import select
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.api.house import CHAT, House, body, open_house

HELLO = json.dumps(body("Hello")).encode()
POST = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
KEY = "a-key-of-more-than-22-letters"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.content)["error"]["code"])


def sized(content: bytes = HELLO, head: bytes = POST) -> bytes:
    return head + b"Content-Length: %d\r\n\r\n" % len(content) + content


def chunked(content: bytes = HELLO, trailers: bytes = b"", head: bytes = POST, size: int = 1000) -> bytes:
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n" + trailers + b"\r\n"


class Line:
    """A connection on which bytes are written as they are."""

    def __init__(self, house: House) -> None:
        self.socket = socket.create_connection(("127.0.0.1", house.port), timeout=60)
        self.file = self.socket.makefile("rb")

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def send(self, *pieces: bytes) -> Line:
        for piece in pieces:
            self.socket.sendall(piece)
        return self

    def reply(self) -> Reply:
        """The next reply, interim ones left out."""
        while (status := int(self.file.readline().split()[1])) < 200:
            assert self.file.readline() == b"\r\n"
        headers = {}
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return Reply(status, headers, self.file.read(int(headers["content-length"])))

    def drained(self) -> bool:
        """Whether the server has said its last word, once what it said before is read away."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(65_536):
                pass
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.socket.settimeout(60)
        return True

    def ended(self) -> bool:
        """Whether the server says no more."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture(scope="module")
def shared_house() -> Iterator[House]:
    with open_house() as house:
        yield house


@pytest.fixture
def house(shared_house: House) -> Iterator[House]:
    with shared_house.unharmed() as house:
        yield house


@pytest.fixture
def line(house: House) -> Iterator[Line]:
    with Line(house) as line:
        yield line


# ---- What is refused

REFUSED = {
    "no Host": (b"GET /health HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    "a Host that is none": (b"GET /health HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "a Host with a path": (b"GET /health HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 400),
    "HTTP/1.2": (b"GET /health HTTP/1.2\r\nHost: a\r\n\r\n", 400),
    "HTTP/2.0": (b"GET /health HTTP/2.0\r\nHost: a\r\n\r\n", 400),
    "chunks in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked, chunked": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "gzip and then chunked": (POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
    "identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    "a length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two equal lengths": (POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 400),
    "a list of lengths": (POST + b"Content-Length: 2, 2\r\n\r\n{}", 400),
    "a length of nothing": (POST + b"Content-Length:\r\n\r\n", 400),
    "two Authorizations": (
        b"GET /health HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
        400,
    ),
    "two Content-Types": (sized(head=POST + b"Content-Type: text/plain\r\n"), 400),
    "CONNECT": (b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "CONNECT with a body": (b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello", 400),
    "a folded header": (b"GET /health HTTP/1.1\r\nHost: a\r\nx: y\r\n z\r\n\r\n", 400),
    "a header without a name": (b"GET /health HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n", 400),
    "lines that end with LF": (b"GET /health HTTP/1.1\nHost: a\n\n\r\n\r\n", 400),
    "a chunk of a negative size": (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n", 400),
    "a chunk longer than it says": (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 400),
    "empty lines without end": (b"\r\n" * 1000, 400),
}


@pytest.mark.parametrize("piecemeal", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_ends(
    line: Line, case: str, piecemeal: bool
) -> None:
    sent, status = REFUSED[case]
    with contextlib.suppress(OSError):  # refused before the last byte
        line.send(*([bytes([byte]) for byte in sent] if piecemeal else [sent]))
    reply = line.reply()
    assert (reply.status, reply.code, reply.headers["connection"]) == (status, "invalid_http", "close")
    assert line.ended()


# ---- Where a request ends

ONE = {
    "a length": sized(),
    "chunks": chunked(),
    "chunks of a byte": chunked(size=1),
    "trailers": chunked(trailers=b"x-one: 1\r\nx-two: 2\r\n"),
    "chunks with extensions": chunked().replace(b"\r\n0\r\n", b"\r\n0;a=b\r\n"),
    "an offer of h2c": sized(
        head=POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    ),
    "an offer of a websocket": sized(head=POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"),
    "an offer of anything": sized(head=POST + b"Connection: Upgrade\r\nUpgrade: foo/2, bar\r\n"),
    "an offer before chunks": chunked(head=POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n"),
    "an offer that is none": sized(head=POST + b"Upgrade: h2c\r\n"),
    "an empty line before": b"\r\n" + sized(),
    "a promise to wait": sized(head=POST + b"Expect: 100-continue\r\n"),
}


@pytest.mark.parametrize("cut", [0, 1, 2, 3], ids=["at once", "head and body", "byte by byte", "head's end cut"])
@pytest.mark.parametrize("case", ONE)
def test_a_request_is_one_request_however_it_comes(line: Line, case: str, cut: int) -> None:
    sent = ONE[case]
    end_of_head = sent.index(b"\r\n\r\n") + 4
    cuts = {
        0: [sent],
        1: [sent[:end_of_head], sent[end_of_head:]],
        2: [bytes([byte]) for byte in sent],
        3: [sent[: end_of_head - 1], sent[end_of_head - 1 :]],
    }
    line.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(2):
        reply = line.send(*cuts[cut]).reply()
        assert reply.status == 200, reply
        assert line.send(LIVE).reply().status == 200


@pytest.mark.parametrize("case", ["a length", "an offer of h2c"])
@pytest.mark.parametrize("content", [HELLO, HELLO + b" " * 100_000, HELLO + b" " * 2_000_000], ids=len)
def test_requests_that_are_sent_at_once_are_answered_in_their_order(line: Line, case: str, content: bytes) -> None:
    head = ONE[case].partition(b"Content-Length")[0]
    line.send(sized(content, head) + LIVE + sized(b"{}", head) + LIVE * 100)
    replies = [line.reply() for _ in range(103)]
    assert [reply.status for reply in replies] == [200, 200, 400, *[200] * 100]
    assert b"choices" in replies[0].content


def test_what_comes_behind_chunks_is_sent_anew_and_never_lost_in_silence(line: Line) -> None:
    """Its end is known to the parser alone: the connection ends after the reply (RFC 9112, 9.3.2)."""
    assert line.send(chunked() + LIVE).reply().status == 200
    assert line.ended()


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
def test_a_body_is_never_read_as_a_request(line: Line, offer: bytes) -> None:
    """Smuggling: what an upgrade's body holds would else be answered as a request of its own."""
    head = POST + b"Connection: Upgrade\r\nUpgrade: " + offer + b"\r\n"
    assert line.send(sized(LIVE, head)[: -len(LIVE)], LIVE).reply().code == "invalid_json"
    assert line.send(LIVE).reply().status == 200


def test_a_client_that_closes_its_side_is_answered(house: House) -> None:
    for sent in (sized(), chunked(), LIVE):
        with Line(house) as line:
            line.send(sent).socket.shutdown(socket.SHUT_WR)
            assert line.reply().status == 200
            assert line.ended()


# ---- Trailers


def test_trailers_are_no_headers() -> None:
    with open_house(api_keys=[KEY]) as house:
        with Line(house) as line:
            reply = line.send(chunked(trailers=f"Authorization: Bearer {KEY}\r\n".encode())).reply()
            assert (reply.status, reply.code) == (401, "invalid_api_key")
        with Line(house) as line:
            allowed = POST + f"Authorization: Bearer {KEY}\r\n".encode()
            assert line.send(chunked(trailers=b"x-request-id: mine\r\n", head=allowed)).reply().status == 200


WITHOUT_END = {
    "trailers": (b"5\r\nhello\r\n0\r\n", b"x: yyyyyyyy\r\n" * 1000),
    "one trailer": (b"0\r\nx: ", b"y" * 10_000),
    "a trailer's name": (b"0\r\n", b"y" * 10_000),
    "a chunk's extension": (b"5;a=", b"b" * 10_000),
    "the size of a chunk": (b"", b"0" * 10_000),
    "chunks of a byte": (b"", b"1;aaaaaaaaaa\r\n \r\n" * 1000),
}


@pytest.mark.parametrize("path", [CHAT, "/health/live"])
@pytest.mark.parametrize("case", WITHOUT_END)
def test_framing_without_end_ends_the_connection(house: House, case: str, path: str) -> None:
    first, more = WITHOUT_END[case]
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
    with Line(house) as line:
        line.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + first)
        with contextlib.suppress(OSError):  # the server has hung up
            while not select.select([line.socket], [], [], 0)[0]:
                line.send(more)
            line.send(*[more] * 100)
        assert line.reply().status in {400, 405}  # whichever comes first, and nothing after it
        assert line.ended()
