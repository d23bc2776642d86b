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
"""Bytes of the marker that begins every JPEG file; a comment may follow."""


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
    return _template("text", messages, MARK, max_tokens, stream=stream, headers=headers)


def picture_template(
    kind: str, seed: int, max_tokens: int, *, stream: bool, headers: Mapping[str, str] | None = None
) -> Template:
    """A question about a picture of a kind of `PICTURES`; the number is a comment in its file.

    Another `seed` is a picture of other pixels, another number one of other bytes.
    """
    file = PICTURES[kind](seed)
    comment = b"\xff\xfe" + (len(MARK) + 2).to_bytes(2, "big") + MARK
    commented = file[:START_OF_FILE] + comment + file[START_OF_FILE:]
    messages = question("data:image/jpeg;base64," + base64.b64encode(commented).decode(), "What is written here?")
    return _template(kind, messages, base64.b64encode(MARK), max_tokens, stream=stream, headers=headers)


def _template(
    kind: str, messages: object, mark: bytes, max_tokens: int, *, stream: bool, headers: Mapping[str, str] | None
) -> Template:
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
