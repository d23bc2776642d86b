"""JSON schemas of strangers: good ones pass unchanged, others are refused by their place, before the engine."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.errors import BadRequest, UnsupportedParameter
from server.openai.schemas import MAX_DEPTH, MAX_MERGED, MAX_SCHEMAS, MAX_VALUES, check_pattern, schema_text

S = "response_format.json_schema.schema"


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth - 1):
        schema = {"type": "array", "items": schema}
    return schema


def alternatives(count: int) -> dict[str, Any]:
    return {"anyOf": [{"required": [f"a{number}"]} for number in range(count)]}


NODE = {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#/$defs/node"}}}}
GOOD: dict[str, dict[str, Any]] = {
    "nothing": {},
    "Arabic": {"type": "object", "properties": {"الاسم": {"type": "string"}}, "required": ["الاسم"]},
    "notes for people": {"title": "t", "description": "d", "default": 1, "examples": [1], "propertyOrdering": []},
    "a property of any name": {"properties": {"not": {"type": "string"}, "$ref": {"type": "string"}, "enum": True}},
    "true and false": {"properties": {"a": True}, "additionalProperties": False},
    "a tree": {"$ref": "#/$defs/node", "$defs": {"node": NODE}},
    "a reference into a list": {"prefixItems": [{"type": "string"}, {"$ref": "#/prefixItems/0"}]},
    "a reference with signs": {"$ref": "#/$defs/a~1b~0c", "$defs": {"a/b~c": {}}},
    "a pattern": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"},
    "as deep as may be": nested(MAX_DEPTH),
    "as many as may be": {"properties": {f"p{number}": True for number in range(MAX_SCHEMAS - 1)}},
    "joined alternatives": {"allOf": [alternatives(8), alternatives(8)]},
    "many alternatives": {"properties": {"kind": alternatives(MAX_MERGED)}},
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_schema_passes_unchanged_in_its_own_order(name: str) -> None:
    text = schema_text(GOOD[name], S)
    assert text == json.dumps(GOOD[name], ensure_ascii=False, separators=(",", ":"))


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "too deep": (nested(MAX_DEPTH + 1), S + ".items" * MAX_DEPTH),
    "too many": ({"properties": {f"p{number}": True for number in range(MAX_SCHEMAS)}}, S),
    "too many values": ({"enum": list(range(MAX_VALUES + 1))}, f"{S}.enum"),
    "too many values together": (
        {"prefixItems": [{"enum": list(range(600))}, {"enum": list(range(600))}]},
        f"{S}.prefixItems[0].enum",
    ),
    "no values": ({"enum": []}, f"{S}.enum"),
    "too long": ({"description": "x" * 120_000}, S),
    "text for a schema": ({"properties": {"x": {"items": "string"}}}, f"{S}.properties.x.items"),
    "a list for properties": ({"properties": []}, f"{S}.properties"),
    "an object for anyOf": ({"items": {"anyOf": {}}}, f"{S}.items.anyOf"),
    "a million items": ({"properties": {"x": {"minItems": 10**6}}}, f"{S}.properties.x.minItems"),
    "a length that is none": ({"maxLength": "5"}, f"{S}.maxLength"),
    "fewer than nothing": ({"minLength": -1}, f"{S}.minLength"),
    "a long pattern": ({"pattern": "a" * 1025}, f"{S}.pattern"),
    "repetitions of repetitions": ({"pattern": "((a{1,100}){1,100}){1,100}"}, f"{S}.pattern"),
    "a reference outside": ({"$ref": "file:///etc/passwd"}, f"{S}.$ref"),
    "a reference to nowhere": ({"$ref": "#/$defs/x"}, f"{S}.$ref"),
    "a reference to no schema": ({"$ref": "#/title", "title": "x"}, f"{S}.$ref"),
    "a reference that is none": ({"$ref": 5}, f"{S}.$ref"),
    "a reference to itself": ({"$ref": "#"}, S),
    "a reference to one of its own alternatives": (
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}}},
        f"{S}.$defs.a",
    ),
    "a bad schema where only a reference leads": ({"$ref": "#/x", "x": {"maxItems": -1}}, f"{S}.$ref.maxItems"),
    "a deep one there": ({"$ref": "#/x", "x": nested(40)}, f"{S}.$ref" + ".items" * MAX_DEPTH),
    "references in a circle": (
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        f"{S}.$defs.a",
    ),
    "alternatives of alternatives": ({"allOf": [alternatives(4)] * 6}, S),
    "the same by references": ({"allOf": [{"$ref": "#/$defs/a"}] * 6, "$defs": {"a": alternatives(4)}}, S),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_schema_is_refused_by_its_place(name: str) -> None:
    schema, place = BAD[name]
    with pytest.raises(BadRequest) as caught:
        schema_text(schema, S)
    assert caught.value.param == place
    assert place in caught.value.message


@pytest.mark.parametrize("name", ["not", "if", "uniqueItems", "contains", "propertyNames", "x-guidance"])
def test_a_keyword_that_no_answer_can_be_held_to_is_named(name: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        schema_text({"properties": {"x": {name: {}}}}, S)
    assert caught.value.param == f"{S}.properties.x.{name}"


KEYWORDS = st.sampled_from(
    ["type", "properties", "items", "anyOf", "allOf", "$ref", "$defs", "enum", "pattern", "minItems", "required", "#"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=30,
)


@given(st.dictionaries(KEYWORDS, JSON, max_size=5))
def test_whatever_comes_passes_or_is_a_bad_request(schema: dict[str, Any]) -> None:
    try:
        assert json.loads(schema_text(schema, S)) == schema
    except BadRequest as error:
        assert str(error.param).startswith(S)  # noqa: PT017


def test_a_regular_expression_is_bounded() -> None:
    check_pattern(r"(\d{1,100}[\u0600-\u06ff]{3}){1,20}", "guided_regex")
    for pattern in ("a\0", "a" * 2000, "(a{200}){200}", "((a{9,}){1000}){1000}"):
        with pytest.raises(BadRequest) as caught:
            check_pattern(pattern, "guided_regex")
        assert caught.value.param == "guided_regex"
