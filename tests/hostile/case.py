"""What a case is: one request, hostile or merely odd, and what must come of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.model import NAME

if TYPE_CHECKING:
    from tests.hostile.house import House

Body = Mapping[str, Any] | bytes
Made = Body | Callable[["House"], Body]
"""A body, or what makes one when it is needed: those of megabytes, and those that name a port of this run."""

URL: Final = "messages[0].content[0].image_url.url"
"""Where the only picture of most cases stands."""


@dataclass(frozen=True)
class Answer:
    """What came back. `status` 0: the connection was closed without a reply."""

    status: int
    content: bytes = b""
    seconds: float = 0.0

    @property
    def error(self) -> dict[str, Any]:
        """The error object; fails where there is none."""
        found: dict[str, Any] = json.loads(self.content)["error"]
        return found

    @property
    def prompt_tokens(self) -> int:
        return int(json.loads(self.content)["usage"]["prompt_tokens"])


@dataclass(frozen=True)
class Case:
    """A request and its fate: an error with this status, code and param, or an answer (`code` None).

    `waits`: it ends by a deadline of the server, so it is sent beside others. `or_answered`: where the work is done in
    time the answer will do as well. `check` says what else must hold.
    """

    send: Callable[[House], Answer]
    status: int
    code: str | None = None
    param: str | None = None
    waits: bool = False
    or_answered: bool = False
    check: Callable[[House, Answer], None] | None = None


def refused(body: Made, code: str, param: str | None = None, status: int = 400, *, waits: bool = False) -> Case:
    """A chat request that gets an error."""
    return Case(lambda house: house.chat(made(body, house)), status, code, param, waits=waits)


def borne(body: Made, code: str, param: str) -> Case:
    """A chat request that costs all the time there is: it gets an error, or an answer if that is enough."""
    return Case(lambda house: house.chat(made(body, house)), 400, code, param, waits=True, or_answered=True)


def answered(body: Made, check: Callable[[House, Answer], None] | None = None) -> Case:
    """A chat request that is odd, and right."""
    return Case(lambda house: house.chat(made(body, house)), 200, check=check)


def made(body: Made, house: House) -> Body:
    return body(house) if callable(body) else body


# ---- Bodies -----------------------------------------------------------------------------------------


def said(content: Any, **more: Any) -> dict[str, Any]:
    """A request with one user message; answers are kept short."""
    return {
        "model": NAME,
        "temperature": 0,
        "max_tokens": 2,
        "messages": [{"role": "user", "content": content}],
        **more,
    }


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def shown(url: str, **more: Any) -> dict[str, Any]:
    """A request about the picture at `url`; `more` stands beside the picture."""
    return said([{"type": "image_url", "image_url": {"url": url}, **more}, text("What is this?")])
