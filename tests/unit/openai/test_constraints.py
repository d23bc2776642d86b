"""What form a client wants of an answer: every spelling becomes one constraint, and nothing is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from server.core import Constraint, Sampling
from server.errors import BadRequest, UnsupportedParameter
from tests.unit.openai.asking import conversation

SCHEMA = {"type": "object", "properties": {"ا": {"type": "string"}}}
TEXT = '{"type":"object","properties":{"ا":{"type":"string"}}}'
WRAPPED = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}

FORMS: dict[str, tuple[dict[str, Any], Constraint | None]] = {
    "text": ({"response_format": {"type": "text"}}, None),
    "null": ({"response_format": None, "structured_outputs": None, "guided_json": None}, None),
    "an object": ({"response_format": {"type": "json_object"}}, Constraint("json_schema", '{"type":"object"}')),
    "a schema": ({"response_format": WRAPPED}, Constraint("json_schema", TEXT)),
    "vLLM's schema": ({"structured_outputs": {"json": SCHEMA}}, Constraint("json_schema", TEXT)),
    "vLLM's schema as text": ({"guided_json": TEXT}, Constraint("json_schema", TEXT)),
    "vLLM's object": ({"structured_outputs": {"json_object": True}}, Constraint("json_schema", '{"type":"object"}')),
    "a regular expression": ({"guided_regex": "a+"}, Constraint("regex", "a+")),
    "choices": ({"structured_outputs": {"choice": ["نعم", "لا"]}}, Constraint("choice", '["نعم", "لا"]')),
    "a grammar": ({"guided_grammar": "start: /a/"}, Constraint("grammar", "start: /a/")),
    "what changes nothing": ({"structured_outputs": {"whitespace_pattern": None}}, None),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_becomes_one_constraint(name: str) -> None:
    body, expected = FORMS[name]
    assert conversation(**body).sampling.constraint == expected


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown type": ({"response_format": {"type": "xml"}}, "response_format.type"),
    "no schema": ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    "an empty wrapping": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
        "response_format.json_schema.schema",
    ),
    "a list for a schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": []}}},
        "response_format.json_schema.schema",
    ),
    "a schema in bad JSON": ({"guided_json": "{"}, "guided_json"),
    "a schema in deep JSON": ({"guided_json": "[" * 50_000}, "guided_json"),
    "no choices": ({"guided_choice": []}, "guided_choice"),
    "an empty choice": ({"guided_choice": ["a", ""]}, "guided_choice[1]"),
    "a schema in a grammar": ({"guided_grammar": "start: %json {}"}, "guided_grammar"),
    "two forms": ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
    "min_tokens beside a form": ({"guided_regex": "a", "min_tokens": 5}, "min_tokens"),
    "bad words beside a form": ({"guided_regex": "a", "bad_words": ["a"]}, "bad_words"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_form_is_refused_by_its_place(name: str) -> None:
    body, param = REFUSED[name]
    with pytest.raises(BadRequest) as caught:
        conversation(**body)
    assert caught.value.param == param


def test_a_wish_of_vllms_that_is_not_offered_is_refused() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        conversation(structured_outputs={"regex": "a", "structural_tag": "{}"})
    assert caught.value.param == "structured_outputs.structural_tag"


def test_everything_that_is_asked_of_sampling_can_be_hashed() -> None:
    """Requests are told apart by it when an engine dies, and only then."""
    asked = conversation(response_format=WRAPPED, logit_bias={"5": 1.5}, stop_token_ids=[1], logprobs=True).sampling
    assert hash(asked) == hash(
        Sampling(logprobs=0, logit_bias=((5, 1.5),), stop_token_ids=(1,), constraint=Constraint("json_schema", TEXT))
    )
    assert hash(conversation(bad_words=["a"], min_tokens=3).sampling)


def test_tokens_are_chosen_as_asked() -> None:
    made = conversation(
        min_tokens=2,
        stop_token_ids=[5, 6],
        include_stop_str_in_output=True,
        bad_words=["a"],
        logit_bias={"7": -100},
        logprobs=True,
        top_logprobs=20,
    ).sampling
    assert made == Sampling(
        min_tokens=2,
        stop_token_ids=(5, 6),
        keep_stop=True,
        bad_words=("a",),
        logit_bias=((7, -100.0),),
        logprobs=20,
    )
    assert conversation(logprobs=False, top_logprobs=0).sampling.logprobs is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"bad_words": [""]}, "bad_words[0]"),
    ],
    ids=["alone", "too many", "a word", "below zero", "too much", "too few tokens", "no token", "no word"],
)
def test_what_makes_no_sense_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        conversation(**body)
    assert caught.value.param == param
