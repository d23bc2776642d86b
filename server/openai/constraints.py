"""What form a client wants of an answer, in any of the spellings, to one constraint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from server.core import Constraint
from server.errors import BadRequest, UnsupportedParameter
from server.openai.chat.body import ChatCompletionRequest
from server.openai.parse import missing
from server.openai.response_format import Choices, ResponseFormat, Schema
from server.openai.schemas import bad, check_pattern, schema_text

ANY_OBJECT = '{"type":"object"}'
INNER_GRAMMARS = ("%json", "%lark", "%regex")
"""What would come into a grammar past the bounds of schemas and regular expressions (llguidance's syntax)."""
MAX_CHOICE_CHARACTERS = 1 << 16


def constraint_of(body: ChatCompletionRequest) -> Constraint | None:
    """The form that the answer must have; None for any.

    Raises:
        BadRequest: it is no such form, or there are several; `param` names the place.
        UnsupportedParameter: it has a keyword that no answer can be held to.
    """
    asked = list(_asked(body))
    if len(asked) > 1:
        first, second = asked[0].param, asked[1].param
        raise BadRequest(f"'{second}' and '{first}' exclude each other.", param=second)
    if not asked:
        return None
    # Both can forbid the only token that the form allows.
    for name in ("min_tokens", "bad_words"):
        if getattr(body, name):
            raise BadRequest(f"'{name}' and '{asked[0].param}' exclude each other.", param=name)
    return asked[0]


def _asked(body: ChatCompletionRequest) -> Iterator[Constraint]:
    if body.response_format is not None:
        yield from _response_format(body.response_format)
    yield from _wishes(body.guided_json, body.guided_regex, body.guided_choice, body.guided_grammar, "guided_")
    if (own := body.structured_outputs) is not None:
        yield from _wishes(own.json_, own.regex, own.choice, own.grammar, "structured_outputs.")
        if own.json_object:
            yield Constraint("json_schema", ANY_OBJECT, "structured_outputs.json_object")


def _response_format(asked: ResponseFormat) -> Iterator[Constraint]:
    if asked.type == "json_object":
        yield Constraint("json_schema", ANY_OBJECT)
    if asked.type == "json_schema":
        if asked.json_schema is None:
            raise missing("response_format.json_schema")
        where = "response_format.json_schema.schema"
        yield Constraint("json_schema", schema_text(asked.json_schema.schema_, where), where)


def _wishes(
    schema: Schema | None, regex: str | None, choice: Choices | None, grammar: str | None, prefix: str
) -> Iterator[Constraint]:
    if schema is not None:
        where = f"{prefix}json"
        yield Constraint("json_schema", schema_text(_as_object(schema, where), where), where)
    if regex is not None:
        check_pattern(regex, f"{prefix}regex")
        yield Constraint("regex", regex, f"{prefix}regex")
    if choice is not None:
        text = json.dumps(choice, ensure_ascii=False)
        if len(text) > MAX_CHOICE_CHARACTERS:
            raise bad(f"{prefix}choice", f"choices have at most {MAX_CHOICE_CHARACTERS} characters together")
        yield Constraint("choice", text, f"{prefix}choice")
    if grammar is not None:
        if any(inner in grammar for inner in INNER_GRAMMARS):
            raise UnsupportedParameter(
                f"'{prefix}grammar' holds a schema; it has a field of its own.", param=f"{prefix}grammar"
            )
        yield Constraint("grammar", grammar, f"{prefix}grammar")


def _as_object(schema: Schema, where: str) -> dict[str, Any]:
    if isinstance(schema, dict):
        return schema
    try:
        read = json.loads(schema)
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise bad(where, "it is a JSON schema, as an object or as text")
    return read
