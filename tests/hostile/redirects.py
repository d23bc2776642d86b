"""Good addresses that lead on to bad ones: every step is judged as the first."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from tests.hostile.case import URL, Case, answered, refused, shown
from tests.hostile.internet import Page, Visit

FORBIDDEN: Final = (
    "http://127.0.0.1/",
    "http://127.1.2.3/",
    "http://[::1]/",
    "http://2130706433/",
    "http://0x7f.1/",
    "http://127.0.0.1:22/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://10.0.0.1/",
    "http://loopback.test/",
    "http://mixed.test/",
    "http://localhost/",
    "http://good.test:22/",
    "http://good.test@127.0.0.1/",
    "//127.0.0.1/",
    "https://127.0.0.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "ftp://good.test/red.png",
    "data:image/png;base64,AAAA",
    "http://store.test/red.png",
)
UNUSABLE: Final = (
    "",
    "http://[::1",
    "\\\\127.0.0.1\\",
    "/\\127.0.0.1/",
    "http://good.test\\@127.0.0.1/",
    "http://good.test/\ttab",
)
"""No URL at all: the host is at fault."""


def _to(location: str, scheme: str = "http") -> str:
    return f"{scheme}://good.test/to?{quote(location, safe='')}"


def _nested(times: int) -> str:
    """A URL that redirects so many times and ends at a picture."""
    url = "http://good.test/red.png"
    for _ in range(times):
        url = _to(url)
    return url


def lead_on(visit: Visit) -> None:
    visit.send(
        b"HTTP/1.1 302 Found\r\nlocation: "
        + visit.query.encode()
        + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )


def lead_round(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 301 Moved\r\nlocation: /round\r\ncontent-length: 0\r\n\r\n")


def lead_again(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 307 Again\r\nlocation: /red.png\r\ncontent-length: 0\r\n\r\n")


def lead_nowhere(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n")


def lead_far(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 302 Found\r\nlocation: /" + b"a" * 9000 + b"\r\ncontent-length: 0\r\n\r\n")


def lead_both_ways(visit: Visit) -> None:
    visit.send(
        b"HTTP/1.1 302 Found\r\nlocation: http://good.test/red.png\r\nlocation: http://127.0.0.1/\r\n"
        b"content-length: 0\r\n\r\n"
    )


def lead_by_refresh(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 200 OK\r\nrefresh: 0; url=http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n")


def lead_with_a_body(visit: Visit) -> None:
    visit.send(b"HTTP/1.1 302 Found\r\nlocation: http://good.test/red.png\r\nconnection: close\r\n\r\n")
    visit.flood(b"x" * 65_536)


PAGES: Final[dict[str, Page]] = {
    "/to": lead_on,
    "/round": lead_round,
    "/again": lead_again,
    "/nowhere": lead_nowhere,
    "/far": lead_far,
    "/both": lead_both_ways,
    "/refresh": lead_by_refresh,
    "/with-a-body": lead_with_a_body,
}


def _failed(url: str) -> Case:
    return refused(shown(url), "failed_to_download_image", URL)


CASES: Final = {
    **{f"to {location!r}": refused(shown(_to(location)), "invalid_image_url", URL) for location in FORBIDDEN},
    **{f"to nothing usable: {location[:40]!r}": _failed(_to(location)) for location in UNUSABLE},
    "round in a circle": _failed("http://good.test/round"),
    "four steps": _failed(_nested(4)),
    "three steps": answered(shown(_nested(3))),
    "without saying where": _failed("http://good.test/nowhere"),
    "to an address of 9,000 letters": _failed("http://good.test/far"),
    "to three slashes, which name no host": _failed(_to("///127.0.0.1/")),
    "to a scheme alone": _failed(_to("http://")),
    "to two places": _failed("http://good.test/both"),
    "by a Refresh header": refused(shown("http://good.test/refresh"), "empty_image_file", URL),
    "with a body that never ends": answered(shown("http://good.test/with-a-body")),
    "from https to http": refused(shown(_to("http://good.test/red.png", "https")), "invalid_image_url", URL),
    "from http to https": answered(shown(_to("https://good.test/red.png"))),
    "in two steps to loopback": refused(shown(_to(_to("http://127.0.0.1/"))), "invalid_image_url", URL),
}
