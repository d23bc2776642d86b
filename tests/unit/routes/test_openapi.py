"""Schemas of request bodies, as the OpenAPI page takes them."""

from __future__ import annotations

from server.protocol.chat import ChatCompletionRequest
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
    assert schema["required"] == ["model", "messages"]
    assert "$ref" not in str(schema)
    assert "$defs" not in str(schema)
