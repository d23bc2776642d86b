"""Files of the server's own machine, by every name a client may try."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from tests.hostile.bodies import RED
from tests.hostile.case import URL, Case, answered, refused, shown
from tests.hostile.house import House

MISSING: Final = "image_file_not_found"
OUTSIDE: Final = (
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "FILE:///etc/passwd",
    "file:/etc/passwd",
    "file:////etc/passwd",
    "file:///%65tc/passwd",
    "file:///proc/self/environ",
    "file:///proc/self/fd/0",
    "file:///proc/self/cwd/pyproject.toml",
    "file:///dev/zero",
    "file:///dev/stdin",
    "file:///",
    "file:///nothing/here",
)
"""Files outside of the folders that the operator named: whether they are there is told to no one."""
MALFORMED: Final = (
    "file://127.0.0.1/etc/passwd",
    "file://good.test/etc/passwd",
    "file:etc/passwd",
    "file:///etc/passwd\x00.png",
    "file:///etc/passwd%00.png",
    "file:///etc/passwd?x.png",
    "file:///etc/passwd#x.png",
    "file://%2Fetc%2Fpasswd",
    "file://",
    "/etc/passwd",
    "../../../../etc/passwd",
    "./pyproject.toml",
    "~/.ssh/id_rsa",
    "etc/passwd\x00.png",
    "C:\\Windows\\win.ini",
    "C:/Windows/win.ini",
    "\\\\good.test\\share\\x.png",
    "//good.test/share/x.png",
    "\x00",
)
"""What is no file: URL of this machine."""
FLAG: Final = "--media-folders"


def make_folders(root: Path) -> tuple[str, ...]:
    """An open folder, a secret one beside it, and every way from the one into the other; the flags that open it."""
    inside, outside = root / "open", root / "open-secrets"
    for folder in (inside / "more", outside):
        folder.mkdir(parents=True)
    for picture in (inside / "red.png", inside / "more" / "red.png", outside / "secret.png", inside / "a b%41.png"):
        picture.write_bytes(RED)
    (inside / "words.png").write_text("no picture")
    (inside / "link-inside.png").symlink_to("red.png")
    (inside / "link-outside.png").symlink_to(outside / "secret.png")
    (inside / "link-relative.png").symlink_to("../open-secrets/secret.png")
    (inside / "link-folder").symlink_to(outside)
    (inside / "link-chain.png").symlink_to("link-outside.png")
    (inside / "link-round.png").symlink_to("link-round.png")
    (inside / "link-device.png").symlink_to("/dev/zero")
    with (inside / "huge.png").open("wb") as huge:
        huge.write(RED)
        huge.truncate(1 << 40)
    os.mkfifo(inside / "pipe.png")  # who opens it to read waits for ever
    return FLAG, str(inside)


INSIDE: Final = {
    "red.png": None,
    "more/red.png": None,
    "more/../red.png": None,
    "./red.png": None,
    "a%20b%2541.png": None,
    "link-inside.png": None,
    "words.png": "invalid_image_format",
    "huge.png": "image_file_too_large",
    "none.png": MISSING,
    "red.png/x": MISSING,
    "": MISSING,
    "more": MISSING,
    "red.png%00.jpg": "invalid_image_url",
    "../open-secrets/secret.png": MISSING,
    "%2e%2e/open-secrets/secret.png": MISSING,
    "..%2fopen-secrets%2fsecret.png": MISSING,
    "more/../../open-secrets/secret.png": MISSING,
    "../../../../../../../../etc/passwd": MISSING,
    "link-outside.png": MISSING,
    "link-relative.png": MISSING,
    "link-folder/secret.png": MISSING,
    "link-chain.png": MISSING,
    "link-round.png": MISSING,
    "link-device.png": MISSING,
    "pipe.png": MISSING,
    "a" * 300 + ".png": MISSING,
}
"""Names below the open folder, and how they are refused; what lies outside is told apart from nothing by no one."""


def _inside(name: str, code: str | None) -> Case:
    def body(house: House) -> dict[str, Any]:
        return shown(f"file://{house.internet.folder}/open/{name}")

    return answered(body) if code is None else refused(body, code, URL)


def _outside(pattern: str) -> Case:
    return refused(lambda house: shown(pattern.format(house.internet.folder)), MISSING, URL)


BESIDE: Final = ("file://{}/open-secrets/secret.png", "file://{}/open", "file://{}/openx/red.png")

CASES: Final[dict[str, Case]] = {
    **{repr(url): refused(shown(url), MISSING, URL) for url in OUTSIDE},
    **{repr(url): refused(shown(url), "invalid_image_url", URL) for url in MALFORMED},
    **{f"in the folder: {name[:50]!r}": _inside(name, code) for name, code in INSIDE.items()},
    **{f"beside the folder: {pattern}": _outside(pattern) for pattern in BESIDE},
    "at another host": refused(
        lambda house: shown(f"file://good.test{house.internet.folder}/open/red.png"), "invalid_image_url", URL
    ),
}


def without_folders(url: str) -> Case:
    """How a server whose operator named no folder refuses a file: whether it is there is never looked at."""
    return refused(shown(url), "invalid_image_url", URL)
