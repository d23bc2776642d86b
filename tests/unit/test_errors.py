"""The tree of errors: drawn, complete, and the same on every wire."""

from __future__ import annotations

import inspect
import re
from typing import get_args

import openai.types.responses.response_error as sdk
import pytest

from server import errors
from server.errors import (
    MAX_RETRY_AFTER_S,
    ApiError,
    BadRequest,
    BodyTooLarge,
    CrashesEngine,
    DeadlineExceeded,
    Draining,
    EngineNotReady,
    ImageCode,
    InternalError,
    InvalidImage,
    ModelNotFound,
    Overloaded,
    RateLimited,
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
        if match := re.match(r"(\d{3})(?: (\w+))?", beside):
            assert kind.status == int(match[1]), name
            assert kind.type == (match[2] or kind.__mro__[1].type), name
            assert (kind.should_retry is True) == (", retryable" in beside), name
            assert (kind.retry_after is not None) == ("Retry-After" in beside), name
            checked += 1
        if match := re.search(r"code ([a-z]+_[a-z_]+|overloaded|draining)$", beside):
            assert kind.default_code == match[1], name
            checked += not beside[0].isdigit()
    assert checked >= len(ALL) - 4  # the base, and the three kinds of media with their many codes


@pytest.mark.parametrize("kind", ALL[1:], ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_a_type_and_a_code(kind: type[ApiError]) -> None:
    assert 400 <= kind.status < 600
    assert re.fullmatch(r"[a-z_]+", kind.type)
    assert re.fullmatch(r"[a-z_]+", kind.default_code or "")


NAMES_NO_FIELD = tuple(kind for kind in ALL if issubclass(kind, Overloaded))


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not InvalidImage], ids=lambda kind: kind.__name__)
def test_the_body_is_openais(kind: type[ApiError]) -> None:
    error = kind("What happened.") if kind in NAMES_NO_FIELD else kind("What happened.", param="messages")
    assert error.body() == {
        "error": {
            "message": "What happened.",
            "type": kind.type,
            "param": None if kind in NAMES_NO_FIELD else "messages",
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


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, 1), (-3.0, 1), (0.2, 1), (1.2, 2), (59.5, 60), (60.0, 60), (1e9, MAX_RETRY_AFTER_S)]
)
def test_a_full_house_says_when_to_come_back_in_whole_seconds_and_within_a_minute(seconds: float, told: int) -> None:
    error = Overloaded("x", retry_after_s=seconds)
    assert error.headers()["retry-after"] == str(told)
    assert Overloaded.retry_after == 1, "the others keep theirs"


def test_what_would_fail_again_is_not_to_be_tried_again() -> None:
    """Neither the time that a client gave, nor a request that kills the engine, is any better the second time."""
    for kind in (DeadlineExceeded, CrashesEngine):
        assert kind("x").headers() == {"x-should-retry": "false"}


def test_a_key_that_has_too_many_requests_is_told_when_to_come_back() -> None:
    error = RateLimited("x")
    assert (error.status, error.type) == (429, "rate_limit_error")
    assert error.headers() == {"retry-after": "1", "x-should-retry": "true"}


def test_a_draining_house_says_the_same_to_everybody() -> None:
    assert Draining().body() == Draining().body()
    assert "shutting down" in Draining().message


def test_sdks_follow_their_own_habits_elsewhere() -> None:
    for kind in (BadRequest, ModelNotFound, InternalError):
        assert kind("x").headers() == {}


def test_a_body_that_is_still_coming_ends_the_connection() -> None:
    for kind in (BodyTooLarge, RequestTimeout):
        assert kind("x").headers() == {"connection": "close"}


def test_nothing_is_a_422_but_a_request_that_is_well_formed_and_kills_the_engine() -> None:
    assert [kind for kind in ALL if kind.status == 422] == [CrashesEngine]


def test_an_unknown_model_is_an_invalid_request_as_with_openai() -> None:
    assert (ModelNotFound.status, ModelNotFound.type) == (404, "invalid_request_error")


def test_image_codes_are_those_of_the_sdks_enum() -> None:
    known = set(get_args(sdk.ResponseError.model_fields["code"].annotation))
    assert set(get_args(ImageCode)) <= known
