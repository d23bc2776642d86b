"""No word of a request is passed over in silence: a name is honoured, refused with its path, or told."""

from __future__ import annotations

import ast
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import completion_create_params

from server.core import Ignored
from server.errors import UnsupportedParameter
from server.openai.chat.body import ChatCompletionRequest, StreamOptions
from server.openai.chat.parameters import (
    EMPTY,
    IN_TEMPLATE,
    LEVELS,
    MAX_COMPARED,
    MAX_NAME,
    MAX_NAMES,
    MAX_TOLD,
    OF_THE_REQUEST,
    TEMPLATE_KWARGS,
    TOP,
    Rule,
    judge,
    refuse,
)
from server.openai.json_body import JsonBody
from server.openai.media.controls import CONTROLS
from server.openai.parse import parse
from server.openai.wire import Wire
from tests.unit.openai.asking import conversation

PICTURE: dict[str, Any] = {"type": "image_url", "image_url": {"url": "u"}}
HERE = "messages[0].content[0]"


def judged(body: dict[str, Any], *words: str) -> Ignored:
    sent = JsonBody.whole(json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **body}).encode())
    return judge(parse(ChatCompletionRequest, sent), frozenset(words))


def refusal(body: dict[str, Any], *words: str) -> UnsupportedParameter:
    with pytest.raises(UnsupportedParameter) as caught:
        judged(body, *words)
    assert caught.value.code == "unsupported_parameter"
    assert f"'{caught.value.param}'" in caught.value.message
    return caught.value


def message(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x", **more}]}


def parts(*content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(content)}]}


# ---- Every level, with a way to put a name there; ({} stands for the body)

PLACES: dict[str, tuple[str, Any]] = {
    "top": ("", lambda more: more),
    "stream_options": ("stream_options", lambda more: {"stream": True, "stream_options": more}),
    "form": ("response_format", lambda more: {"response_format": {"type": "json_object", **more}}),
    "in form": (
        "response_format.json_schema",
        lambda more: {"response_format": {"type": "json_schema", "json_schema": {"schema": {}, **more}}},
    ),
    "structured": ("structured_outputs", lambda more: {"structured_outputs": more}),
    "message": ("messages[0]", lambda more: message(**more)),
    "text": (HERE, lambda more: parts({"type": "text", "text": "x", **more})),
    "refusal": (HERE, lambda more: parts({"type": "refusal", "refusal": "x", **more})),
    "image_url": (HERE, lambda more: parts({**PICTURE, **more})),
    "image": (HERE, lambda more: parts({"type": "image", "image": "u", **more})),
    "video_url": (HERE, lambda more: parts({"type": "video_url", "video_url": {"url": "u"}, **more})),
    "video": (HERE, lambda more: parts({"type": "video", "video": ["u"], **more})),
    "file": (HERE, lambda more: parts({"type": "file", "file": {"file_data": "u"}, **more})),
    "in image_url": (
        f"{HERE}.image_url",
        lambda more: parts({"type": "image_url", "image_url": {"url": "u", **more}}),
    ),
    "in image": (f"{HERE}.image", lambda more: parts({"type": "image", "image": {"url": "u", **more}})),
    "in video_url": (
        f"{HERE}.video_url",
        lambda more: parts({"type": "video_url", "video_url": {"url": "u", **more}}),
    ),
    "in video": (f"{HERE}.video", lambda more: parts({"type": "video", "video": {"url": "u", **more}})),
    "in file": (f"{HERE}.file", lambda more: parts({"type": "file", "file": {"file_data": "u", **more}})),
    "mm": ("mm_processor_kwargs", lambda more: {"mm_processor_kwargs": more}),
    "mm.size": ("mm_processor_kwargs.size", lambda more: {"mm_processor_kwargs": {"size": more}}),
    "io": ("media_io_kwargs", lambda more: {"media_io_kwargs": more}),
    "io.image": ("media_io_kwargs.image", lambda more: {"media_io_kwargs": {"image": more}}),
    "io.video": ("media_io_kwargs.video", lambda more: {"media_io_kwargs": {"video": more}}),
}
OPEN = [place for place in PLACES if not place.startswith(("mm", "io", "structured"))]
CLOSED = [place for place in PLACES if place not in OPEN]


def put(place: str, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = PLACES[place][1](more)
    return body


def path_of(place: str, name: str) -> str:
    where = PLACES[place][0]
    return f"{where}.{name}" if where else name


def wires(wire: Wire) -> Iterator[Wire]:
    yield wire
    for name in type(wire).model_fields:
        value = getattr(wire, name)
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, Wire):
                yield from wires(inner)


def level_of(place: str) -> type[Wire]:
    """The wire type of the object that a name comes into."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **put(place, zz=1)}).encode()
    [found] = [wire for wire in wires(parse(ChatCompletionRequest, JsonBody.whole(body))) if "zz" in wire.model_extra]
    return type(found)


def rules_of(place: str) -> dict[str, Rule]:
    """Of names that have no field there."""
    kind = level_of(place)
    fields = kind.model_fields
    return {name: rule for name, rule in LEVELS[kind].rules.items() if name not in fields}


RULES = [(place, name, rule) for place in OPEN for name, rule in rules_of(place).items()]


def of(effect: str) -> list[Any]:
    return [pytest.param(place, name, id=f"{place}-{name}") for place, name, rule in RULES if rule.effect == effect]


def test_every_level_is_tried_here() -> None:
    assert {level_of(place) for place in PLACES} == set(LEVELS)


def test_no_field_is_both_offered_and_refused() -> None:
    own = {name for name, rule in TOP.items() if rule.effect != "none"}
    assert not own & ChatCompletionRequest.model_fields.keys()


@pytest.mark.parametrize("place", OPEN)
def test_what_steers_or_carries_is_refused_by_its_path_and_nothing_else_than_neutral_passes(place: str) -> None:
    for name, rule in rules_of(place).items():
        if rule.effect == "refused":
            for value in ("something that nobody means", ["x"], {"x": 1}, 0.123, 77):
                assert refusal(put(place, **{name: value})).param == path_of(place, name)
        for neutral in (None, *rule.neutral):
            assert judged(put(place, **{name: neutral})) == Ignored(), (name, neutral)


@pytest.mark.parametrize(("place", "name"), of("told"))
def test_what_has_no_effect_but_was_asked_for_is_told(place: str, name: str) -> None:
    assert judged(put(place, **{name: "something"})) == Ignored((path_of(place, name),), 1)


@pytest.mark.parametrize("place", OPEN)
def test_what_changes_no_answer_is_passed_over(place: str) -> None:
    for name, rule in rules_of(place).items():
        if rule.effect == "none":
            assert judged(put(place, **{name: {"any": ["thing", 1]}})) == Ignored(), name


@pytest.mark.parametrize("place", OPEN)
def test_every_control_is_obeyed_or_refused_at_every_level(place: str) -> None:
    fields = level_of(place).model_fields
    for name in CONTROLS:
        if name not in fields:
            assert refusal(put(place, **{name: 3})).param == path_of(place, name)


@pytest.mark.parametrize("place", OPEN)
@pytest.mark.parametrize(
    "name", ["image", "images", "image_url", "video", "video_url", "audio", "file", "files", "attachments"]
)
def test_every_medium_is_seen_or_refused_at_every_level(place: str, name: str) -> None:
    if place != "stream_options" and name not in level_of(place).model_fields:
        assert refusal(put(place, **{name: ["iVBORw0KGgo="]})).param == path_of(place, name)
        for nothing in (None, *EMPTY):
            assert judged(put(place, **{name: nothing})) == Ignored()


unknown = st.text(min_size=1, max_size=80).map(lambda text: "zq" + text)
values = st.sampled_from([1, -0.5, "x", True, [1], {"a": {"b": None}}])


@settings(max_examples=200)
@given(st.sampled_from(OPEN), unknown, values)
def test_what_is_truly_unknown_is_accepted_and_told(place: str, name: str, value: Any) -> None:
    ignored = judged(put(place, **{name: value}))
    assert (ignored.count, len(ignored.names)) == (1, 1)
    assert ignored.names[0].startswith(path_of(place, "zq"))
    assert ignored.names[0].isascii()
    assert judged(put(place, **{name: None})) == Ignored()
    with pytest.raises(UnsupportedParameter) as caught:
        refuse(ignored)
    assert caught.value.param == ignored.names[0]
    assert ignored.names[0] in caught.value.message


@pytest.mark.parametrize("place", CLOSED)
def test_where_all_changes_what_the_model_sees_nothing_unknown_is_accepted(place: str) -> None:
    assert refusal(put(place, zq=1)).param == path_of(place, "zq")
    assert "Known here: " in refusal(put(place, zq=1)).message
    for nothing in (None, {}):
        assert judged(put(place, zq=nothing)) == Ignored()


@pytest.mark.parametrize("place", OPEN)
def test_a_control_of_another_medium_that_asks_for_nothing_changes_nothing(place: str) -> None:
    role = "assistant" if place == "refusal" else "user"
    fields = level_of(place).model_fields
    for name in CONTROLS - fields.keys():
        for nothing in EMPTY:
            body = put(place, **{name: nothing})
            messages = [{**one, "role": role} for one in body.pop("messages", [{"content": "x"}])]
            assert conversation(*messages, **body).ignored == Ignored()


# ---- Slips of the pen


@pytest.mark.parametrize(
    ("place", "slip", "meant"),
    [
        ("in image_url", "max_pixel", "max_pixels"),
        ("image_url", "max_pixel", "max_pixels"),
        ("image_url", "maxPixels", "max_pixels"),
        ("text", "max_pixel", "max_pixels"),
        ("in video_url", "max_frame", "max_frames"),
        ("video", "n_frames", "nframes"),
        ("video", "video_stat", "video_start"),
        ("file", "page", "pages"),
        ("mm", "max_pixel", "max_pixels"),
        ("mm.size", "longestEdge", "longest_edge"),
        ("io.video", "num_frame", "num_frames"),
        ("message", "contents", "content"),
        ("stream_options", "include_usages", "include_usage"),
        ("top", "max_token", "max_tokens"),
        ("top", "maxTokens", "max_tokens"),
        ("top", "temprature", "temperature"),
        ("top", "top-p", "top_p"),
        ("top", "stops", "stop"),
        ("top", "stopSequences", "stop_sequences"),
        ("top", "jsonSchema", "json_schema"),
        ("message", "maxTokens", "max_tokens"),
    ],
)
def test_a_slip_is_refused_with_what_was_meant(place: str, slip: str, meant: str) -> None:
    error = refusal(put(place, **{slip: 1}))
    assert error.param == path_of(place, slip)
    assert f"Did you mean '{meant}'?" in error.message
    assert judged(put(place, **{slip: None})) == Ignored()


def test_a_slip_does_not_hide_behind_what_every_message_repeats() -> None:
    turns = [{"role": "user", "content": "x", "timestamp": 1}] * 200
    shown = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u", "max_pixel": 9}}]}
    assert refusal({"messages": [*turns, shown]}).param == "messages[200].content[0].image_url.max_pixel"
    assert judged({"messages": turns}) == Ignored(("messages[0].timestamp",), 200)
    names = {f"zq{number}": 1 for number in range(MAX_COMPARED - 1)}
    assert refusal({**names, "max_token": 1}).param == "max_token"


@pytest.mark.parametrize("name", OF_THE_REQUEST)
def test_what_steers_the_answer_counts_at_the_top_alone(name: str) -> None:
    for place in OPEN:
        if place != "top" and name not in level_of(place).model_fields:
            assert refusal(put(place, **{name: "something"})).param == path_of(place, name)


def test_a_medium_or_a_control_elsewhere_is_told_where_it_belongs() -> None:
    assert "mm_processor_kwargs" in refusal({"max_pixels": 9}).message
    assert "image_url" in refusal(message(images=["x"])).message
    assert "'fps'" in refusal(put("video_url", video_fps=4)).message


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("repeat_penalty", "repetition_penalty"),
        ("max_new_tokens", "max_tokens"),
        ("n_predict", "max_tokens"),
        ("stop_sequences", "stop"),
        ("random_seed", "seed"),
    ],
)
def test_what_is_offered_by_another_name_is_told_so(name: str, instead: str) -> None:
    assert f"Use '{instead}'." in refusal({name: 5}).message
    for rule in TOP.values():
        if rule.instead.isidentifier():
            assert rule.instead in ChatCompletionRequest.model_fields


# ---- What clients of OpenAI and vLLM can send


def known(kind: type[Wire]) -> set[str]:
    return {*kind.model_fields, *LEVELS[kind].rules}


def fields_of_vllm(name: str) -> set[str]:
    """The fields of a class of vLLM's protocol, without importing vLLM."""
    package = importlib.util.find_spec("vllm")
    assert package is not None
    assert package.submodule_search_locations
    for file in (Path(package.submodule_search_locations[0]) / "entrypoints").rglob("protocol.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name == name:
                targets = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
                return {one.id for one in targets if isinstance(one, ast.Name) and not one.id.startswith("_")}
    raise AssertionError(f"vLLM has no {name}")


def test_every_parameter_of_openai_is_known() -> None:
    theirs = set(completion_create_params.CompletionCreateParamsBase.__annotations__)
    assert theirs - known(ChatCompletionRequest) == set()


@pytest.mark.parametrize(
    ("theirs", "ours"), [("ChatCompletionRequest", ChatCompletionRequest), ("StreamOptions", StreamOptions)]
)
def test_every_parameter_of_vllm_is_known(theirs: str, ours: type[Wire]) -> None:
    fields = fields_of_vllm(theirs)
    assert fields
    assert fields - known(ours) - {TEMPLATE_KWARGS} == set()


# ---- Values that ask for nothing, as clients send them

NEUTRAL: dict[str, dict[str, Any]] = {
    "Dify": {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
    "tools that are not to be called": {"tools": [{"type": "function"}], "tool_choice": "none"},
    "functions that are not to be called": {"functions": [{"name": "f"}], "function_call": "none"},
    "no tools": {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
    "web search": {"web_search_options": {}},
    "structured outputs": {"structured_outputs": {}},
    "structured outputs of nulls": {"structured_outputs": {"json": None, "disable_any_whitespace": False}},
    "text": {"response_format": {"type": "text", "json_schema": None}},
    "no effort": {"reasoning_effort": "none", "verbosity": "medium", "store": False},
    "obfuscation": {"stream": True, "stream_options": {"include_obfuscation": False}},
    "books": {"user": {"id": 1}, "metadata": {"a": "b"}, "prompt_cache_key": "k", "safety_identifier": "s"},
    "uuid": parts({**PICTURE, "uuid": "a"}),
    "cache_control": parts({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}),
    "an assistant's reply, sent back": message(role="assistant", annotations=[], tool_calls=[], audio=None),
    "format": parts({"type": "image_url", "image_url": {"url": "u", "format": "image/png"}}),
    "template kwargs": {"chat_template_kwargs": {"add_generation_prompt": True, "tools": [], "x": None}},
}


@pytest.mark.parametrize("case", NEUTRAL)
def test_what_asks_for_nothing_is_neither_refused_nor_told(case: str) -> None:
    assert judged(NEUTRAL[case], "add_generation_prompt", "tools", "add_vision_id") == Ignored()


def test_a_zero_is_not_false_nor_one_true() -> None:
    assert refusal({"add_generation_prompt": 1}).param == "add_generation_prompt"
    assert refusal({"echo": 0}).param == "echo"
    assert refusal({"best_of": True}).param == "best_of"
    assert judged({"best_of": 1.0, "length_penalty": 1}) == Ignored()


def test_tools_are_refused_unless_none_is_to_be_called() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    assert refusal({"tools": tools}).param == "tools"
    assert refusal({"tools": tools, "tool_choice": "auto"}).param == "tools"
    assert refusal({"tool_choice": "required"}).param == "tool_choice"


# ---- What is for the template


def test_the_template_decides_what_its_arguments_mean() -> None:
    asked = {"chat_template_kwargs": {"enable_thinking": True}}
    assert judged(asked) == Ignored(("chat_template_kwargs.enable_thinking",), 1)
    for value in (True, False):
        error = refusal({"chat_template_kwargs": {"enable_thinking": value}}, "enable_thinking")
        assert error.param == "chat_template_kwargs.enable_thinking"
    assert judged({"chat_template_kwargs": {"add_vision_id": False}}, "add_vision_id") == Ignored()
    assert refusal({"chat_template_kwargs": {"add_vision_id": True}}, "add_vision_id").param is not None
    hidden = {"chat_template_kwargs": {"chat_template": "{{ messages }}"}}
    assert refusal(hidden).param == "chat_template_kwargs.chat_template"
    assert refusal({"chat_template_kwargs": ["x"]}).param == "chat_template_kwargs"
    assert IN_TEMPLATE.keys() > TOP.keys()


# ---- Bounds


def test_what_is_told_is_bounded_and_safe_whatever_comes() -> None:
    many = {f"zq{number}-" + "\r\n\u0645," * 40: 1 for number in range(500)}
    ignored = judged({**many, **parts({**PICTURE, **many})})
    assert ignored.count == 1000
    assert 1 <= len(ignored.names) <= MAX_NAMES
    assert all(len(name) <= MAX_NAME + len(HERE) + 1 for name in ignored.names)
    assert sum(map(len, ignored.names)) <= MAX_TOLD
    written = str(ignored)
    assert written.endswith(f", +{1000 - len(ignored.names)}")
    assert set(written) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.[]-?, +")


def test_a_long_name_is_cut_in_errors() -> None:
    assert refusal({"mm_processor_kwargs": {"x" * 5000: 1}}).param == "mm_processor_kwargs." + "x" * MAX_NAME


def test_a_name_of_a_person_in_a_message_is_told() -> None:
    assert judged(message(name="Maryam")) == Ignored(("messages[0].name",), 1)
    assert judged(message(name="")) == Ignored()


def test_a_part_of_an_unknown_kind_is_left_to_its_own_error() -> None:
    assert judged(parts({"type": "input_audio", "input_audio": {}})) == Ignored()


# ---- Values as vLLM's, llama.cpp's, Ollama's and TGI's clients send them

ASKED_FOR: dict[str, Any] = {
    "add_generation_prompt": False,
    "add_special_tokens": True,
    "allowed_token_ids": [5],
    "audio": {"voice": "alloy", "format": "wav"},
    "best_of": 2,
    "chat_template": "{{ messages }}",
    "continue_final_message": True,
    "documents": [{"title": "a", "text": "b"}],
    "echo": True,
    "function_call": {"name": "f"},
    "functions": [{"name": "f"}],
    "ignore_eos": True,
    "image_embeds": "AAAA",
    "length_penalty": 2.0,
    "logprob_token_ids": [5],
    "modalities": ["text", "audio"],
    "prompt_logprobs": 1,
    "repetition_detection": {"max_pattern_size": 4},
    "return_token_ids": True,
    "skip_special_tokens": False,
    "spaces_between_special_tokens": False,
    "thinking_token_budget": 5,
    "tool_choice": "required",
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "truncate_prompt_tokens": 100,
    "truncation_side": "left",
    "use_beam_search": True,
    "vllm_xargs": {"a": 1},
    "web_search_options": {"search_context_size": "low"},
}


@pytest.mark.parametrize("name", ASKED_FOR)
def test_a_field_that_is_not_offered_is_refused_and_not_ignored(name: str) -> None:
    assert refusal({name: ASKED_FOR[name]}).param == name
