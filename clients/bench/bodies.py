"""What is asked: pictures drawn here, no two alike, and whole HTTP requests around them, ready for a socket.

Everything is made before the clock starts. Pictures differ in their pixels, not in their bytes alone, so that no cache
of either server can answer for one with another.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from clients.bench.peers import MODEL_NAME, question

Pixels = NDArray[np.uint8]

A4 = (2480, 3508)
"""Width and height of a page at 300 dots an inch."""
FULL_HD = (1920, 1080)
THUMBNAIL = (224, 224)
PHOTO_QUALITY = 85
SCAN_QUALITY = 86
"""With the noise of `_scan`, a page of about 2 MB."""
WORDS = ("the", "server", "reads", "a", "page", "and", "answers", "what", "is", "written", "on", "it", "in", "words")


def text_request(number: int, max_tokens: int, *, stream: bool) -> bytes:
    """A question of some 60 words; `number` makes it another one from its first words on, for no prefix cache."""
    random = np.random.default_rng(number)
    words = " ".join(str(word) for word in random.choice(WORDS, 60))
    return _request([{"role": "user", "content": f"Question {number}: {words}?"}], max_tokens, stream=stream)


def picture_request(kind: str, number: int, max_tokens: int, *, stream: bool) -> bytes:
    """A question about picture `number` of a kind of `PICTURES`."""
    url = "data:image/jpeg;base64," + base64.b64encode(PICTURES[kind](number)).decode()
    return _request(question(url, "What is written here?"), max_tokens, stream=stream)


def _request(messages: object, max_tokens: int, *, stream: bool) -> bytes:
    body: dict[str, object] = {"model": MODEL_NAME, "messages": messages, "max_tokens": max_tokens, "temperature": 0}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    data = json.dumps(body).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


# ---- Pictures


def scanned_page(number: int) -> bytes:
    """An A4 page of text with the noise of a scanner, as JPEG of about 2 MB."""
    return _jpeg(_moved(_scan(), number), SCAN_QUALITY)


def photo(number: int) -> bytes:
    """Soft shapes and some noise at 1920x1080, as JPEG of about 0.4 MB."""
    return _jpeg(_moved(_photo(), number), PHOTO_QUALITY)


def thumbnail(number: int) -> bytes:
    """A part of 224x224 pixels of the photo, as JPEG of about 15 kB."""
    width, height = THUMBNAIL
    return _jpeg(_moved(_photo(), number)[:height, :width], PHOTO_QUALITY)


PICTURES: Final[dict[str, Callable[[int], bytes]]] = {"224px": thumbnail, "1080p": photo, "a4": scanned_page}


def _moved(pixels: Pixels, number: int) -> Pixels:
    """The picture pushed along, with what leaves on one side coming in on the other: as costly, and never the same."""
    return np.roll(pixels, (29 * number, 13 * number), axis=(0, 1))


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


@cache
def _scan() -> Pixels:
    width, height = A4
    random = np.random.default_rng(1)
    page = Image.new("L", A4, 242)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(42)
    for top in range(200, height - 200, 62):
        pen.text((200, top), " ".join(str(word) for word in random.choice(WORDS, 15)), fill=30, font=font)
    grey = np.asarray(page) + 4 * random.standard_normal((height, width), np.float32)
    colours = 2 * random.standard_normal((height, width, 3), np.float32)
    pixels: Pixels = np.clip(grey[..., None] + colours, 0, 255).astype(np.uint8)
    return pixels


@cache
def _photo() -> Pixels:
    width, height = FULL_HD
    random = np.random.default_rng(2)
    light = np.zeros((height, width, 3), np.float32)
    for side, weight in ((4, 0.5), (16, 0.3), (64, 0.2)):
        coarse = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
        light += weight * np.asarray(coarse.resize(FULL_HD, Image.Resampling.BICUBIC), np.float32)
    light += 5 * random.standard_normal((height, width, 1), np.float32)
    return np.clip(light, 0, 255).astype(np.uint8)
