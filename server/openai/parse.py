"""Bytes of a request body to a wire type, with errors that name the field as the client wrote it."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from server.errors import BadRequest
from server.openai.json_body import JsonBody
from server.openai.wire import TAG

Request = TypeVar("Request", bound=BaseModel)

CODES = {"missing": "missing_required_parameter", "json_invalid": "invalid_json"}
"""OpenAI's error code by pydantic's error type, where neither of the rules in `_code` fits."""

MAX_SHOWN = 200
"""Characters of a message that may come from the client's own input."""


def parse(kind: type[Request], body: JsonBody) -> Request:
    """Validate a JSON body; long strings of media are marks there, for `body.find`.

    Raises:
        BadRequest: not JSON, or the first field that is missing or wrong; `param` is its path.
    """
    try:
        return kind.model_validate_json(body.json)
    except ValidationError as error:
        raise _bad_request(error) from None


def _bad_request(error: ValidationError) -> BadRequest:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    code = _code(first["type"])
    if code == "invalid_json":
        return BadRequest(f"The request body is not valid JSON: {_shorten(first['msg'])}", code=code)
    param = path(first["loc"])
    if code == "missing_required_parameter":
        return missing(param)
    where = f"'{param}'" if param else "the request body"
    return BadRequest(f"Invalid {where}: {_shorten(first['msg'])}.", param=param or None, code=code)


def missing(param: str) -> BadRequest:
    """The error for a field that has to be there."""
    return BadRequest(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def _code(kind: str) -> str:
    if kind in CODES:
        return CODES[kind]
    return "invalid_type" if kind.endswith("_type") else "invalid_value"


def path(location: tuple[int | str, ...]) -> str:
    """A pydantic location as clients write it: `messages[0].content[1].image_url.url`."""
    written = ""
    for step in location:
        if isinstance(step, int):
            written += f"[{step}]"
        elif not step.startswith(TAG):
            written += f".{step}" if written else step
    return written


def _shorten(message: Any) -> str:
    text = str(message)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
