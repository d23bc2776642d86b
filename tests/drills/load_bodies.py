"""What the drills of overload ask: requests that are whole but for a number, which makes each of them another one.

A server that is offered hundreds of requests a second shares the machine with whoever offers them, so a request must
cost its sender next to nothing: what is sent is three pieces, of which two were made before the clock started.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from clients.bench.bodies import PICTURES, WORDS
from clients.bench.peers import MODEL_NAME, question

DIGITS: Final = 21
"""Of the number, a multiple of three: then it is a piece of its own in base64, too."""
MARK: Final = b"#" * DIGITS
START_OF_FILE: Final = 2
"""Bytes of the marker that begins every JPEG file."""


@dataclass(frozen=True, slots=True)
class Template:
    """A request with a place for its number."""

    kind: str
    head: bytes
    tail: bytes
    streams: bool
    encodes: bool = False
    """Whether the number stands within base64."""

    def numbered(self, number: int) -> Sequence[bytes]:
        """The pieces of request `number`."""
        digits = b"%0*d" % (DIGITS, number)
        return self.head, base64.b64encode(digits) if self.encodes else digits, self.tail


def text_template(seed: int, max_tokens: int, *, stream: bool, headers: Mapping[str, str] | None = None) -> Template:
    """A question of some 60 words that begins with its number, so that no two have a prefix in common."""
    words = " ".join(str(word) for word in np.random.default_rng(seed).choice(WORDS, 60))
    messages = [{"role": "user", "content": f"{MARK.decode()}: {words}?"}]
    return request_template("text", messages, max_tokens, stream=stream, headers=headers)


def picture_template(
    kind: str, seed: int, max_tokens: int, *, stream: bool, headers: Mapping[str, str] | None = None
) -> Template:
    """A question about a picture of a kind of `PICTURES`; the number is a comment in its file.

    Another `seed` is a picture of other pixels, another number one of other bytes.
    """
    file = with_comment(PICTURES[kind](seed), MARK)
    messages = question("data:image/jpeg;base64," + base64.b64encode(file).decode(), "What is written here?")
    return request_template(kind, messages, max_tokens, stream=stream, headers=headers, mark=base64.b64encode(MARK))


def with_comment(file: bytes, comment: bytes) -> bytes:
    """A JPEG file with a comment, behind the marker that begins every such file."""
    segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
    return file[:START_OF_FILE] + segment + file[START_OF_FILE:]


def request_template(
    kind: str,
    messages: object,
    max_tokens: int,
    *,
    stream: bool,
    headers: Mapping[str, str] | None = None,
    mark: bytes = MARK,
) -> Template:
    """A request with these messages, in which `mark` is the place of its number."""
    body: dict[str, object] = {"model": MODEL_NAME, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"{lines}content-length: {len(data)}\r\n\r\n"
    )
    before, _, after = data.partition(mark)
    return Template(kind, head.encode() + before, after, stream, encodes=mark != MARK)


def mixed(*, headers: Mapping[str, str] | None = None) -> list[Template]:
    """What many callers ask: of twenty requests sixteen of text, half of them streamed, three thumbnails, one photo.

    Answers to text have 32 to 64 tokens, those about pictures 16. The list goes round: request `n` is of its n-th.
    """
    made: list[Template] = []
    for turn in range(8):
        for place in range(20):
            seed = 20 * turn + place
            if place in {3, 9, 16}:
                made.append(picture_template("224px", seed, 16, stream=False, headers=headers))
            elif place == 12:
                made.append(picture_template("1080p", seed, 16, stream=False, headers=headers))
            else:
                made.append(text_template(seed, 32 + 7 * seed % 33, stream=bool(seed % 2), headers=headers))
    return made
