"""Answers held to a form, and the probabilities of their tokens, on the real engine."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import jsonschema
import pytest

from tests.e2e.asking import Client

pytestmark = pytest.mark.e2e

RANDOM = {"temperature": 2.0, "top_k": -1, "top_p": 1.0}
"""As random as can be: what still has the form has it because it must."""

SCHEMAS: dict[str, dict[str, Any]] = {
    "a record in Arabic": {
        "type": "object",
        "properties": {
            "اللون": {"enum": ["أحمر", "أزرق"]},
            "العدد": {"type": "integer", "minimum": 1, "maximum": 20},
            "صحيح": {"type": "boolean"},
        },
        "required": ["اللون", "العدد", "صحيح"],
        "additionalProperties": False,
    },
    "a list of alternatives": {
        "type": "array",
        "minItems": 1,
        "maxItems": 3,
        "items": {"anyOf": [{"$ref": "#/$defs/date"}, {"type": "null"}]},
        "$defs": {"date": {"type": "string", "pattern": "^20[0-9]{2}-0[1-9]$"}},
    },
}


def response_format(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "form", "schema": schema, "strict": True}}


@pytest.mark.parametrize("sampling", [{}, {**RANDOM, "n": 4, "seed": 3}], ids=["greedy", "random"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_an_answer_is_valid_by_its_schema_and_has_no_white_space(
    client: Client, name: str, sampling: dict[str, Any]
) -> None:
    schema = SCHEMAS[name]
    reply = client.ask("Hello", response_format=response_format(schema), max_tokens=200, **sampling)
    assert set(reply.reasons) == {"stop"}
    for text in reply.texts:
        value = json.loads(text)
        jsonschema.validate(value, schema)
        assert text == json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def test_other_forms(client: Client) -> None:
    assert re.fullmatch("[0-9]{3}", client.ask("Hello", structured_outputs={"regex": "[0-9]{3}"}, **RANDOM).text)
    assert client.ask("Hello", guided_choice=["نعم", "لا"], **RANDOM).text in {"نعم", "لا"}
    grammar = 'root ::= "a" | "b" root'
    assert re.fullmatch("b*a", client.ask("Hello", guided_grammar=grammar, max_tokens=200, seed=1, **RANDOM).text)


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"guided_regex": "(?=a)b"}, "guided_regex"),
        ({"guided_grammar": "no grammar"}, "guided_grammar"),
        ({"structured_outputs": {"json": {"type": "strin"}}}, "structured_outputs.json"),
        ({"logit_bias": {"999999": 1}}, "logit_bias"),
    ],
    ids=["look-ahead", "no grammar", "no type", "no token"],
)
def test_what_only_the_engine_can_judge_is_a_bad_request(client: Client, form: dict[str, Any], param: str) -> None:
    reply = client.post(client.body("Hello", **form))
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param
    assert client.ask("Hello", max_tokens=4).text


@pytest.mark.parametrize("question", ["Say hello.", "اكتب كلمة."])
def test_the_bytes_of_all_tokens_are_the_answer_and_the_likeliest_comes_first(client: Client, question: str) -> None:
    body = client.body(question, logprobs=True, top_logprobs=3, max_tokens=40, **{**RANDOM, "seed": 5})
    choice = client.post(body).json()["choices"][0]
    tokens = choice["logprobs"]["content"]
    whole = b"".join(bytes(token["bytes"]) for token in tokens)
    assert whole.decode(errors="ignore").startswith(choice["message"]["content"])
    for token in tokens:
        assert token["logprob"] <= 0
        assert len(token["top_logprobs"]) == 3
        likely = [other["logprob"] for other in token["top_logprobs"]]
        assert likely == sorted(likely, reverse=True)
        assert sum(map(math.exp, likely)) <= 1.001
        assert "\ufffd" not in token["token"]


def test_a_bias_and_bad_words_act(client: Client) -> None:
    first = client.post(client.body("Hello", logprobs=True, top_logprobs=1, max_tokens=1)).json()
    word = first["choices"][0]["message"]["content"]
    assert not client.ask("Hello", bad_words=[word], max_tokens=8).text.startswith(word)
    assert client.ask("Hello", min_tokens=60, max_tokens=60).completion_tokens == 60
