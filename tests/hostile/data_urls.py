"""Pictures inside the request, badly wrapped."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

from tests.e2e.asking import PATH
from tests.hostile.bodies import RED
from tests.hostile.case import URL, Answer, Case, answered, refused, shown
from tests.hostile.house import House
from tests.hostile.packing import MIB

BASE64: Final = base64.b64encode(RED).decode()
GOOD: Final = f"data:image/png;base64,{BASE64}"
HALF_A_GIGABYTE: Final = 512 * MIB

REFUSED: Final = {
    "no base64": ("data:image/png,hello", "invalid_base64_image"),
    "percent encoding": ("data:image/png,%89PNG%0D%0A", "invalid_base64_image"),
    "base64 that is not marked": (f"data:image/png,{BASE64}", "invalid_base64_image"),
    "base64 marked too early": (f"data:image/png;base64;charset=utf-8,{BASE64}", "invalid_base64_image"),
    "base32": ("data:image/png;base32,NBSWY3DP", "invalid_base64_image"),
    "a letter too many": (
        f"data:image/png;base64,{BASE64.rstrip('=')[: len(BASE64) // 4 * 4 - 4]}A",
        "invalid_base64_image",
    ),
    "too much padding": (f"data:image/png;base64,{BASE64}====", "invalid_base64_image"),
    "padding in the middle": (f"data:image/png;base64,AA==AAAA{BASE64}", "invalid_base64_image"),
    "padding alone": ("data:image/png;base64,====", "invalid_base64_image"),
    "the alphabet of URLs, and nothing": ("data:image/png;base64,-_-_", "invalid_image_format"),
    "escapes that are none": ("data:image/png;base64,AAA%", "invalid_base64_image"),
    "foreign letters": ("data:image/png;base64,\u0645\u0631\u062d\u0628", "invalid_base64_image"),
    "full-width letters": ("data:image/png;base64,\uff21\uff21\uff21\uff21", "invalid_base64_image"),
    "a NUL": ("data:image/png;base64,AAA\x00", "invalid_base64_image"),
    "no comma": (f"data:image/png;base64{BASE64}", "invalid_image_url"),
    "no comma for kilobytes": (f"data:{'a' * 5000}", "invalid_image_url"),
    "an endless head": (f"data:image/png;{'a=b;' * 3000}base64,{BASE64}", "invalid_image_url"),
    "a quotation without an end": (f'data:image/png;a="b;base64,{BASE64}', "invalid_base64_image"),
    "quotations for kilobytes": ("data:image/png;" + '"\\"' * 20_000, "invalid_image_url"),
    "empty": ("data:image/png;base64,", "empty_image_file"),
    "nothing but spaces": ("data:image/png;base64,  \r\n\t ", "empty_image_file"),
    "nothing": ("data:", "invalid_image_url"),
    "a comma": ("data:,", "invalid_base64_image"),
    "SVG": ("data:image/svg+xml;base64,PHN2Zz4=", "unsupported_image_media_type"),
    "four bytes of a TIFF": ("data:image/tiff;base64,SUkqAA==", "image_parse_error"),
    "HTML": ("data:text/html;base64,PGh0bWw+", "unsupported_image_media_type"),
    "a video": ("data:video/mp4;base64,AAAA", "invalid_image_format"),
    "a program": ("data:application/x-executable;base64,f0VMRg==", "invalid_image_format"),
    "a media type with a path": ("data:image/../png;base64,AAAA", "invalid_image_format"),
    "a media type of markup": ("data:<script>alert(1)</script>;base64,AAAA", "invalid_image_format"),
    "a data URL in a data URL": (
        f"data:image/png;base64,{base64.b64encode(GOOD.encode()).decode()}",
        "invalid_image_format",
    ),
    "not a picture": ("data:image/png;base64,aGVsbG8gd29ybGQh", "invalid_image_format"),
    "one byte": ("data:image/png;base64,AA==", "invalid_image_format"),
    "base64 of base64": (
        f"data:image/png;base64,{base64.b64encode(BASE64.encode()).decode()}",
        "invalid_image_format",
    ),
}
ANSWERED: Final = {
    "no media type": f"data:;base64,{BASE64}",
    "a capital scheme": f"DATA:image/png;base64,{BASE64}",
    "capital letters": f"data:IMAGE/PNG;BASE64,{BASE64}",
    "a parameter": f"data:image/png;charset=utf-8;base64,{BASE64}",
    "a comma in quotes": f'data:image/png;name="a,b;base64,.png";base64,{BASE64}',
    "codecs with a comma": f"data:image/png;codecs=a,b;base64,{BASE64}",
    "a long head": f"data:image/png;{'a=b;' * 1000}base64,{BASE64}",
    "no padding": f"data:image/png;base64,{BASE64.rstrip('=')}",
    "the alphabet of URLs": f"data:image/png;base64,{BASE64.replace('+', '-').replace('/', '_')}",
    "escapes": f"data:image/png;base64,{quote(BASE64, safe='')}",
    "the wrong picture type": f"data:image/webp;base64,{BASE64}",
    "lines": "data:image/png;base64," + "\r\n".join(BASE64[at : at + 76] for at in range(0, len(BASE64), 76)),
    "spaces around": f"  {GOOD}\n",
}


def _large(_: House) -> dict[str, object]:
    """A picture of 21 MiB where 20 are allowed."""
    content = base64.b64encode(RED + bytes(21 * MIB)).decode()
    return shown(f"data:image/png;base64,{content}")


def _half_a_gigabyte_announced(house: House) -> Answer:
    return house.raw([f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {HALF_A_GIGABYTE}\r\n\r\n".encode()])


def _half_a_gigabyte_sent(house: House) -> Answer:
    """Sent in earnest, for as long as the server takes it."""

    def pieces() -> Iterator[bytes]:
        yield f"POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {HALF_A_GIGABYTE}\r\n\r\n".encode()
        for _ in range(HALF_A_GIGABYTE // MIB):
            yield b"A" * MIB

    return house.raw(pieces(), pause_s=0.001)


CASES: Final = {
    **{name: refused(shown(url), code, URL) for name, (url, code) in REFUSED.items()},
    **{name: answered(shown(url)) for name, url in ANSWERED.items()},
    "21 MiB": refused(_large, "image_file_too_large", URL),
    "half a gigabyte, announced": Case(_half_a_gigabyte_announced, 413, "request_too_large"),
    "half a gigabyte, sent": Case(_half_a_gigabyte_sent, 413, "request_too_large"),
}
