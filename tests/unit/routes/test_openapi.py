"""Schemas of request bodies, as the OpenAPI page takes them."""

from __future__ import annotations

from typing import Any

import pytest

from server.openai.chat.body import ChatCompletionRequest
from server.openai.media.content import PARTS
from server.routes.openapi import body_schema, inline


def test_references_are_replaced_by_what_they_point_to_at_any_depth() -> None:
    definitions = {"B": {"type": "object", "properties": {"c": {"$ref": "#/x/C"}}}, "C": {"type": "string"}}
    assert inline({"anyOf": [{"$ref": "#/x/B"}, 5]}, definitions) == {
        "anyOf": [{"type": "object", "properties": {"c": {"type": "string"}}}, 5]
    }


def test_a_body_is_required_json_and_refers_to_nothing() -> None:
    body = body_schema(ChatCompletionRequest)["requestBody"]
    assert body["required"] is True
    schema = body["content"]["application/json"]["schema"]
    assert schema["required"] == ["messages"]
    assert "$ref" not in str(schema)
    assert "$defs" not in str(schema)


def schema() -> Any:
    return body_schema(ChatCompletionRequest)["requestBody"]["content"]["application/json"]["schema"]


def parts_in(schema: Any) -> dict[str, Any]:
    """The schemas of content parts by their type."""
    message = schema["properties"]["messages"]["items"]
    [content] = [arm for arm in message["properties"]["content"]["anyOf"] if arm.get("type") == "array"]
    kinds = content["items"]["oneOf"]
    return {kind["properties"]["type"]["const"]: kind for kind in kinds if "const" in kind["properties"]["type"]}


@pytest.mark.parametrize("kind", PARTS)
def test_every_kind_of_part_is_there_and_says_what_it_is(kind: str) -> None:
    part = parts_in(schema())[kind]
    assert part["description"].endswith((".", "`."))
    undescribed = [
        name
        for name, field in part["properties"].items()
        if name not in ("type", "text") and not field.get("description")
    ]
    assert undescribed == []


@pytest.mark.parametrize("name", ["mm_processor_kwargs", "media_io_kwargs", "return_media_info"])
def test_what_holds_for_all_media_is_there_with_a_description(name: str) -> None:
    assert schema()["properties"][name]["description"].endswith(".")
