"""What form an answer shall have, on the wire: OpenAI's `response_format`, and vLLM's `structured_outputs`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from server.openai.wire import Wire

Choices = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=1000, fail_fast=True)]
Grammar = Annotated[str, Field(min_length=1, max_length=1 << 14)]
Schema = dict[str, Any] | str
"""An object, or the same as text."""


class JsonSchema(Wire):
    """A schema, as OpenAI's clients wrap it."""

    schema_: dict[str, Any] = Field(alias="schema", description="What the answer must be valid by.")
    name: str | None = Field(None, description="Has no effect.")
    description: str | None = Field(None, description="Has no effect: say in a message what the answer is for.")
    strict: bool | None = Field(None, description="Has no effect: answers are held to every schema.")


class ResponseFormat(Wire):
    """`text`: whatever the model says. `json_object`: some JSON object. `json_schema`: JSON that is valid by one."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Wire):
    """One of these, as in vLLM."""

    json_: Schema | None = Field(None, alias="json", description="A JSON schema.")
    regex: str | None = Field(None, description="A regular expression, without look-around and references.")
    choice: Choices | None = Field(None, description="The answer is one of these texts.")
    grammar: Grammar | None = Field(None, description="A grammar in Lark's syntax or in GBNF.")
    json_object: bool | None = Field(None, description="Some JSON object.")
