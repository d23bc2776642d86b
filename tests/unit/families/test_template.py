"""Rendering a model's own template with marks for people's texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.families.family import UnknownFamilyError
from server.families.template import Template, TemplateError, chat_template

PARTS = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}>"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<picture>{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
LINES = "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] | trim }}\n{% endfor %}"


def written(folder: Path, source: str) -> Template:
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": True, "pad_token": None})
    )
    return Template(folder)


def test_the_templates_words_and_the_places_of_texts_are_told_apart(tmp_path: Path) -> None:
    made = written(tmp_path, PARTS).render([("system", ["a"]), ("user", ["b", None, "c"])])
    assert made == ["<s><system>", 0, "</><user>", 1, "<picture>", 2, "</><assistant>"]


def test_a_template_for_text_gets_a_line_for_each_part(tmp_path: Path) -> None:
    made = written(tmp_path, LINES).render([("user", [None, "b", None]), ("assistant", ["c"])], picture="<image>")
    assert made == ["[user] <image>\n", 0, "\n<image>\n[assistant] ", 1, "\n"]


def test_texts_never_pass_through_the_template(tmp_path: Path) -> None:
    """What it says depends on roles and places alone."""
    template = written(
        tmp_path, "{% if 'secret' in messages[0]['content'] %}yes{% endif %}{{ messages[0]['content'] }}"
    )
    assert template.render([("user", ["secret"])], picture="") == ["", 0, ""]


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[7]['content'] }}",
        "{% for",
        "nothing of it",
        "{{ messages[0]['content'] }}{{ messages[0]['content'] }}",
    ],
    ids=["raises", "fails", "broken", "loses", "repeats"],
)
def test_a_template_that_does_not_take_the_messages_is_told(tmp_path: Path, source: str) -> None:
    with pytest.raises(TemplateError):
        written(tmp_path, source).render([("user", ["a"])], picture="")


def test_a_templates_own_words_of_refusal_reach_a_person_without_marks(tmp_path: Path) -> None:
    template = written(tmp_path, "{{ raise_exception('no place for ' + messages[0]['content']) }}")
    with pytest.raises(TemplateError, match=r"^no place for \.\.\.$"):
        template.render([("user", ["a"])], picture="")


# ---- Where templates are found


def test_the_template_is_found_in_every_place_that_it_has_had(tmp_path: Path) -> None:
    assert chat_template(tmp_path) is None
    named = [{"name": "tools", "template": "other"}, {"name": "default", "template": "of several"}]
    for name, content, found in (
        ("tokenizer_config.json", json.dumps({"chat_template": named}), "of several"),
        ("tokenizer_config.json", json.dumps({"chat_template": "of the tokenizer"}), "of the tokenizer"),
        ("chat_template.json", json.dumps({"chat_template": "of the processor"}), "of the processor"),
        ("chat_template.jinja", "its own file", "its own file"),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        assert chat_template(tmp_path) == found


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"chat_template": 1}', '{"chat_template": []}'])
def test_a_model_without_a_template_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UnknownFamilyError, match="holds no chat template"):
        Template(tmp_path)
