"""Fields with values that an engine would choke on."""

from __future__ import annotations

from typing import Any, Final

from tests.e2e.asking import data_url
from tests.hostile.bodies import RED
from tests.hostile.case import URL, Case, answered, refused, said, shown

PICTURE: Final = data_url(RED, "image/png")


def deep_schema(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def answer_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


RECURSIVE: Final = {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}]}}}
PATHOLOGICAL: Final = "(((a+)+)+)+" * 20 + "$"
TEMPLATE: Final = "{% for i in range(10**9) %}{{ ''.__class__.__mro__ }}{% endfor %}"

OUT_OF_BOUNDS: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "n 16,384": ({"n": 16_384}, "invalid_value", "n"),
    "n 2**63": ({"n": 1 << 63}, "invalid_value", "n"),
    "n 0": ({"n": 0}, "invalid_value", "n"),
    "n -1": ({"n": -1}, "invalid_value", "n"),
    "n over what the operator allows": ({"n": 9}, "invalid_value", "n"),
    "n a fraction": ({"n": 1.5}, "invalid_type", "n"),
    "n a list": ({"n": [1] * 1000}, "invalid_type", "n"),
    "max_tokens 2**63": ({"max_tokens": 1 << 63}, "invalid_value", "max_tokens"),
    "max_tokens -1": ({"max_tokens": -1}, "invalid_value", "max_tokens"),
    "max_tokens true": ({"max_tokens": True}, "invalid_type", "max_tokens"),
    "max_completion_tokens 0": ({"max_completion_tokens": 0}, "invalid_value", "max_completion_tokens"),
    "temperature 1e308": ({"temperature": 1e308}, "invalid_value", "temperature"),
    "temperature -0.1": ({"temperature": -0.1}, "invalid_value", "temperature"),
    "temperature infinite": ({"temperature": float("inf")}, "invalid_value", "temperature"),
    "temperature not a number": ({"temperature": float("nan")}, "invalid_value", "temperature"),
    "temperature a million nines": ({"temperature": "9" * 1_000_000}, "invalid_type", "temperature"),
    "top_p -0.1": ({"top_p": -0.1}, "invalid_value", "top_p"),
    "top_k -2": ({"top_k": -2}, "invalid_value", "top_k"),
    "top_k 2**40": ({"top_k": 1 << 40}, "invalid_value", "top_k"),
    "min_p 2": ({"min_p": 2}, "invalid_value", "min_p"),
    "presence_penalty 1e30": ({"presence_penalty": 1e30}, "invalid_value", "presence_penalty"),
    "frequency_penalty -9": ({"frequency_penalty": -9}, "invalid_value", "frequency_penalty"),
    "repetition_penalty 0": ({"repetition_penalty": 0}, "invalid_value", "repetition_penalty"),
    "repetition_penalty -1": ({"repetition_penalty": -1}, "invalid_value", "repetition_penalty"),
    "seed 2**63": ({"seed": 1 << 63}, "invalid_value", "seed"),
    "ten thousand stops": ({"stop": ["a"] * 10_000}, "invalid_value", "stop"),
    "a stop of a megabyte": ({"stop": "a" * 1_000_000}, "invalid_value", "stop[0]"),
    "an empty stop": ({"stop": [""]}, "invalid_value", "stop[0]"),
    "stops in stops": ({"stop": [["a"]]}, "invalid_type", "stop[0]"),
    "stream of text": ({"stream": "true"}, "invalid_type", "stream"),
    "stream_options without a stream": ({"stream_options": {"include_usage": True}}, "invalid_value", "stream_options"),
    "mm_processor_kwargs a number": ({"mm_processor_kwargs": 5}, "invalid_type", "mm_processor_kwargs"),
    "mm_processor_kwargs of code": (
        {"mm_processor_kwargs": {"trust_remote_code": True}},
        "unsupported_parameter",
        "mm_processor_kwargs.trust_remote_code",
    ),
    "mm_processor_kwargs of a patch size": (
        {"mm_processor_kwargs": {"patch_size": 0}},
        "unsupported_parameter",
        "mm_processor_kwargs.patch_size",
    ),
}
SCHEMA: Final = "response_format.json_schema.schema"
JOINED: Final = {"allOf": [{"anyOf": [{"required": [f"a{i}{j}"]} for j in range(4)]} for i in range(6)]}
"""4,096 ways to be valid, each a schema of its own."""

FORMS: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "top_logprobs 21": ({"logprobs": True, "top_logprobs": 21}, "invalid_value", "top_logprobs"),
    "logit_bias outside": ({"logit_bias": {"999999999": 100}}, "invalid_value", "logit_bias"),
    "logit_bias below": ({"logit_bias": {"-1": 100}}, "invalid_value", "logit_bias"),
    "logit_bias of words": ({"logit_bias": {"a": "b"}}, "invalid_type", "logit_bias.a"),
    "stop_token_ids below": ({"stop_token_ids": [-1]}, "invalid_value", "stop_token_ids[0]"),
    "stop_token_ids outside": ({"stop_token_ids": [1 << 30]}, "invalid_value", "stop_token_ids"),
    "a long bad word": ({"bad_words": ["a" * 100_000]}, "invalid_value", "bad_words[0]"),
    "min_tokens 2**40": ({"min_tokens": 1 << 40}, "invalid_value", "min_tokens"),
    "an endless schema": ({"guided_json": RECURSIVE}, "invalid_value", "guided_json.$defs.a"),
    "a regex that repeats without end": ({"guided_regex": "((a{1,999}){1,999}){9}"}, "invalid_value", "guided_regex"),
    "a grammar that is none": ({"guided_grammar": "root ::= root root | root | ''"}, "invalid_value", "guided_grammar"),
    "a deep grammar": (
        {"guided_grammar": "start: " + "(" * 8000 + '"a"' + ")" * 8000},
        "invalid_value",
        "guided_grammar",
    ),
    "a deep schema": (
        {"response_format": answer_schema(deep_schema(50))},
        "invalid_value",
        SCHEMA + ".properties.a" * 32,
    ),
    "a reference outside": (
        {"response_format": answer_schema({"$ref": "file:///etc/passwd"})},
        "invalid_value",
        f"{SCHEMA}.$ref",
    ),
    "alternatives of alternatives": ({"response_format": answer_schema(JOINED)}, "invalid_value", SCHEMA),
}

NOT_OFFERED: Final[dict[str, dict[str, Any]]] = {
    "prompt_logprobs -1": {"prompt_logprobs": -1},
    "prompt_logprobs 10**9": {"prompt_logprobs": 10**9},
    "allowed_token_ids outside": {"allowed_token_ids": [-1, 1 << 40]},
    "a chat template": {"chat_template": TEMPLATE},
    "image_embeds": {"image_embeds": "gASVHwAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjARldmlslIWUUpQu"},
    "best_of": {"best_of": 10_000},
    "beam search": {"use_beam_search": True},
    "vllm_xargs": {"vllm_xargs": {"kv_transfer_params": {"remote_host": "127.0.0.1"}}},
    "tools with deep schemas": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": deep_schema(50)}}]
    },
    "three thousand tools": {"tools": [{"type": "function", "function": {"name": "f"}}] * 3000},
}
"""The param is the last field: what is not offered is refused by its name, whatever its value."""

BUDGETS: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "max_pixels 2**63": ({"max_pixels": 1 << 63}, "invalid_value", "messages[0].content[0].max_pixels"),
    "max_pixels 0": ({"max_pixels": 0}, "invalid_value", "messages[0].content[0].max_pixels"),
    "max_pixels text": ({"max_pixels": "1" * 5000}, "invalid_type", "messages[0].content[0].max_pixels"),
    "max_pixels 1": ({"max_pixels": 1}, "invalid_value", URL),
    "min_pixels 2**40": ({"min_pixels": 1 << 40}, "invalid_value", URL),
    "min over max": ({"min_pixels": 100_000, "max_pixels": 50_000}, "invalid_value", URL),
    "resized_height 2**40": ({"resized_height": 1 << 40, "resized_width": 28}, "invalid_value", URL),
    "resized_height alone": ({"resized_height": 56}, "invalid_value", URL),
    "resized 1 to 201": ({"resized_height": 28, "resized_width": 28 * 201}, "invalid_value", URL),
}

PICTURES: Final = [{"type": "image_url", "image_url": {"url": PICTURE}}]

CASES: Final[dict[str, Case]] = {
    **{name: refused({**said("Hello"), **more}, code, param) for name, (more, code, param) in OUT_OF_BOUNDS.items()},
    **{
        name: refused({**said("Hello"), **more}, "unsupported_parameter", next(iter(more)))
        for name, more in NOT_OFFERED.items()
    },
    **{f"form: {name}": refused({**said("Hello"), **more}, code, param) for name, (more, code, param) in FORMS.items()},
    "form: a pathological regex": answered(said("Hello", guided_regex=PATHOLOGICAL, max_tokens=50)),
    "form: a pathological pattern": answered(
        said("Hello", guided_json={"type": "string", "pattern": PATHOLOGICAL}, max_tokens=50)
    ),
    "form: an ambiguous grammar": answered(said("Hello", guided_grammar='start: start start | "a"', max_tokens=50)),
    **{
        f"picture budget: {name}": refused(shown(PICTURE, **more), code, param)
        for name, (more, code, param) in BUDGETS.items()
    },
    "999 pictures": refused(said(PICTURES * 999), "invalid_value", "messages[0].content[16].image_url.url"),
    "17 pictures in 17 messages": refused(
        {**said("x"), "messages": [{"role": "user", "content": PICTURES}] * 17},
        "invalid_value",
        "messages[16].content[0].image_url.url",
    ),
    "a picture of the system": answered(
        {**said("x"), "messages": [{"role": "system", "content": PICTURES}, {"role": "user", "content": "Hello"}]}
    ),
    "a picture by its id": refused(
        said([{"type": "image_url", "image_url": {"url": PICTURE}, "uuid": "another's"}, {"type": "image_url"}]),
        "missing_required_parameter",
        "messages[0].content[1].image_url",
    ),
    "embeddings as a picture": refused(
        said([{"type": "image_embeds", "image_embeds": "gASVHwAAAAAAAACMBXBvc2l4lIwGc3lzdGVt"}]),
        "invalid_value",
        "messages[0].content[0].type",
    ),
    "an image file's id": refused(
        said([{"type": "input_image", "file_id": "file-1"}]), "invalid_value", "messages[0].content[0].type"
    ),
    "a picture of the wrong detail": refused(
        said([{"type": "image_url", "image_url": {"url": PICTURE, "detail": "x" * 10_000}}]),
        "invalid_value",
        "messages[0].content[0].image_url.detail",
    ),
    "a chat template hidden": refused(
        said("Hello", chat_template_kwargs={"chat_template": TEMPLATE}),
        "unsupported_parameter",
        "chat_template_kwargs.chat_template",
    ),
    "a cache salt of somebody else": refused(
        said("Hello", cache_salt="../" * 1000, user="root"), "unsupported_parameter", "cache_salt"
    ),
    "a ceiling of 2**31 tokens": answered(said("Hello", max_tokens=1 << 31)),
    "a user of somebody else, before all others": answered(said("Hello", user="root", priority=-(1 << 31))),
    "ten thousand names that nobody knows": answered(said("Hello", **{f"zq{n}": 1 for n in range(10_000)})),
    "names that would forge a header": answered(said("Hello", **{"zq\r\nx-forged: 1\u0645" * 50: 1})),
    "two hundred names in messages": answered(
        {**said("x"), "messages": [{"role": "user", "content": "", "zq": 1}] * 200}
    ),
    "a priority before all others": refused(said("Hello", priority=-(1 << 70)), "invalid_value", "priority"),
    "a deadline that has always been over": refused(said("Hello", timeout=-1), "invalid_value", "timeout"),
    "a deadline that is never over": answered(said("Hello", timeout=1e300)),
    "a request id of somebody else": answered(said("Hello", request_id="\r\nx: y", kv_transfer_params={"a": 1})),
}
