"""Request bodies for the OpenAPI page. Routes parse bodies themselves, so FastAPI cannot see their schemas."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def body_schema(kind: type[BaseModel]) -> dict[str, Any]:
    """`openapi_extra` of a route whose JSON body is `kind`."""
    schema = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": inline(schema, definitions)}}},
    }


def inline(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema with every reference replaced by what it points to; wire types do not refer to themselves."""
    match schema:
        case {"$ref": str(reference)}:
            return inline(definitions[reference.rsplit("/", 1)[1]], definitions)
        case dict():
            return {name: inline(value, definitions) for name, value in schema.items()}
        case list():
            return [inline(value, definitions) for value in schema]
        case _:
            return schema
