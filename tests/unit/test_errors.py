"""The tree of errors: drawn, complete, and the same on every wire."""

from __future__ import annotations

import inspect
import re
from typing import get_args

import openai.types.responses.response_error as sdk
import pytest

from server import errors
from server.errors import (
    ApiError,
    BadRequest,
    BodyTooLarge,
    EngineNotReady,
    ImageCode,
    InternalError,
    InvalidImage,
    ModelNotFound,
    Overloaded,
    RequestTimeout,
)


def family(kind: type[ApiError]) -> list[type[ApiError]]:
    return [kind, *(descendant for child in kind.__subclasses__() for descendant in family(child))]


ALL = [kind for kind in family(ApiError) if kind.__module__ == errors.__name__]


def drawn() -> dict[str, tuple[str, str]]:
    """The tree as the module's docstring draws it: name -> (parent, what stands beside it)."""
    tree: dict[str, tuple[str, str]] = {}
    path: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        match = re.fullmatch(r" {4}([│├└─ ]*)([A-Z]\w+)\s*(.*)", line)
        if match and (match[1] or match[2] == "ApiError"):
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            tree[match[2]] = (path[depth - 1] if depth else "", match[3])
    return tree


def test_every_error_is_drawn_in_its_place() -> None:
    assert {name: parent for name, (parent, _) in drawn().items() if parent} == {
        kind.__name__: kind.__mro__[1].__name__ for kind in ALL[1:]
    }


def test_the_drawing_names_the_right_status_type_and_code() -> None:
    checked = 0
    for name, (_, beside) in drawn().items():
        kind = getattr(errors, name)
        if match := re.match(r"(\d{3}) (\w+)", beside):
            assert (kind.status, kind.type) == (int(match[1]), match[2]), name
            checked += 1
        if match := re.match(r"code ([a-z]+_[a-z_]+|overloaded|draining)$", beside):
            assert kind.default_code == match[1], name
            checked += 1
    assert checked >= len(ALL) - 4  # the base, and the three kinds of media with their many codes


@pytest.mark.parametrize("kind", ALL[1:], ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_a_type_and_a_code(kind: type[ApiError]) -> None:
    assert 400 <= kind.status < 600
    assert re.fullmatch(r"[a-z_]+", kind.type)
    assert re.fullmatch(r"[a-z_]+", kind.default_code or "")


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not InvalidImage], ids=lambda kind: kind.__name__)
def test_the_body_is_openais(kind: type[ApiError]) -> None:
    assert kind("What happened.", param="messages").body() == {
        "error": {
            "message": "What happened.",
            "type": kind.type,
            "param": "messages",
            "code": kind.default_code,
        }
    }


def test_a_code_of_its_own_wins() -> None:
    assert BadRequest("x", code="invalid_json").body()["error"] == {
        "message": "x",
        "type": "invalid_request_error",
        "param": None,
        "code": "invalid_json",
    }


def test_what_can_be_tried_again_says_so_and_when() -> None:
    assert Overloaded("x").headers() == {"retry-after": "1", "x-should-retry": "true"}
    assert EngineNotReady("x").headers() == {"retry-after": "5", "x-should-retry": "true"}


def test_what_can_be_tried_again_is_not_put_off_longer_than_sdks_wait() -> None:
    for kind in ALL:
        assert kind.retry_after is None or 1 <= kind.retry_after <= 60, "openai-node gives up above a minute"


def test_sdks_follow_their_own_habits_elsewhere() -> None:
    for kind in (BadRequest, ModelNotFound, InternalError):
        assert kind("x").headers() == {}


def test_a_body_that_is_still_coming_ends_the_connection() -> None:
    for kind in (BodyTooLarge, RequestTimeout):
        assert kind("x").headers() == {"connection": "close"}


def test_nothing_is_a_422() -> None:
    assert 422 not in {kind.status for kind in ALL}


def test_an_unknown_model_is_an_invalid_request_as_with_openai() -> None:
    assert (ModelNotFound.status, ModelNotFound.type) == (404, "invalid_request_error")


def test_image_codes_are_those_of_the_sdks_enum() -> None:
    known = set(get_args(sdk.ResponseError.model_fields["code"].annotation))
    assert set(get_args(ImageCode)) <= known
