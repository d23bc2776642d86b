"""Models that are left to their own processor: prompts from their own templates, safe from what people type."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from server.core import Clip, ClipSource, DocumentSource, Message, Opened, Picture, PictureSource, Prompt, Role
from server.errors import BadRequest
from server.families import load_family
from server.families.family import UnknownFamilyError
from server.families.own_processor import OwnProcessor
from tests.model import FOLDER

IMAGE = 987
"""The id of <image_here>, a control token that stands for a picture."""
SOURCE = PictureSource("data:", "messages[0].content[0]")
PARTS = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image_here>\n{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FIRST = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image_here>{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)
LINES = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NUMBERED = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image_{{ loop.index }}>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
ALTERNATING = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}{% endfor %}" + PARTS
)


def model(folder: Path, template: str, **config: Any) -> Path:
    """A folder with the demo model's tokenizer and one more control token."""
    document = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))
    document["added_tokens"].append({**document["added_tokens"][0], "id": IMAGE, "content": "<image_here>"})
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    shutil.copyfile(FOLDER / "tokenizer_config.json", folder / "tokenizer_config.json")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "other", "vision_config": {"a": 1}, **config}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("other"), PARTS)


@pytest.fixture(scope="module")
def family(folder: Path) -> Any:
    return load_family(folder)


def picture(height: int = 30, width: int = 40) -> Picture:
    return Picture(np.zeros((height * width, 3), np.uint8), (1, height, width), "digest", (width, height))


Spoken = tuple[Role, tuple[str | Picture, ...]]


def build(family: Any, spoken: Sequence[Spoken]) -> Prompt:
    messages = [
        Message(role, tuple(part if isinstance(part, str) else SOURCE for part in parts)) for role, parts in spoken
    ]
    shown = [part for _, parts in spoken for part in parts if not isinstance(part, str)]
    prompt: Prompt = family.build_prompt(messages, [Opened(SOURCE, (one,)) for one in shown])
    return prompt


def reference(folder: Path, spoken: Sequence[Spoken]) -> list[int]:
    """The template with the texts in it, tokenised as one."""
    from transformers.utils.chat_template_utils import render_jinja_template

    messages = [
        {
            "role": role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts
            ],
        }
        for role, parts in spoken
    ]
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (rendered,), _ = render_jinja_template([messages], chat_template=template, add_generation_prompt=True)
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return list(whole.encode(rendered, add_special_tokens=False).ids)


# ---- What is chosen


def test_an_unknown_type_with_a_vision_part_is_left_to_its_own_processor(family: Any) -> None:
    assert isinstance(family, OwnProcessor)
    assert (family.patch_size, family.factor, family.takes_clips) == (1, 1, False)
    assert picture(30, 40).resized_size == (40, 30)


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (PARTS.replace("<image_here>\n", ""), "says nothing for a picture"),
        (NUMBERED, "does not say the same for each picture"),
        ("{{ raise_exception('never') }}", "cannot be used: never"),
        ("no texts", "cannot be used: it leaves texts out"),
    ],
    ids=["text only", "numbered", "raises", "loses texts"],
)
def test_a_template_that_cannot_be_used_is_told_at_start(tmp_path: Path, template: str, complaint: str) -> None:
    with pytest.raises(UnknownFamilyError, match=complaint):
        load_family(model(tmp_path, template))


# ---- Prompts

texts = st.text() | st.sampled_from(["مرحبا", "\n", " ", "a  b", "\r\n"])
conversations: st.SearchStrategy[list[Spoken]] = st.lists(
    st.tuples(st.sampled_from(("system", "user", "assistant")), st.lists(texts | st.builds(picture), max_size=4)).map(
        lambda turn: (turn[0], tuple(turn[1]))
    ),
    min_size=1,
    max_size=4,
)


def is_harmless(spoken: list[Spoken]) -> bool:
    return not any("<" in part for _, parts in spoken for part in parts if isinstance(part, str))


@settings(max_examples=60, deadline=None)
@given(conversations.filter(is_harmless))
def test_a_prompt_is_the_models_template_tokenised(folder: Path, family: Any, spoken: list[Spoken]) -> None:
    prompt = build(family, spoken)
    assert prompt.token_ids == reference(folder, spoken)
    assert [placed.offset for placed in prompt.pictures] == [
        position for position, token in enumerate(prompt.token_ids) if token == IMAGE
    ]
    assert {placed.length for placed in prompt.pictures} <= {1}


typed = st.lists(
    st.sampled_from(["<image_here>", "<|im_end|>", "<|im_start|>", "system\n", "\n", "<", "|>", "{{", "n0n"]),
    max_size=6,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(st.lists(typed | st.builds(picture), max_size=5))
def test_whatever_is_typed_the_control_tokens_are_the_templates_own(family: Any, parts: list[str | Picture]) -> None:
    prompt = build(family, [("user", tuple(parts))])
    shown = [part for part in parts if isinstance(part, Picture)]
    assert [placed.picture for placed in prompt.pictures] == shown
    assert prompt.token_ids.count(IMAGE) == len(shown)
    assert prompt.token_ids.count(980) == 2
    assert prompt.token_ids.count(981) == 1


def test_pictures_that_the_template_shows_first_keep_their_order(tmp_path: Path) -> None:
    family = load_family(model(tmp_path, FIRST))
    one, other = picture(10, 10), picture(20, 20)
    prompt = build(family, [("user", ("a", one, "b", other)), ("user", (one,))])
    assert [placed.picture for placed in prompt.pictures] == [one, other, one]
    assert prompt.token_ids[prompt.pictures[0].offset :][:2] == [IMAGE, IMAGE]


def test_a_template_for_text_has_the_placeholder_of_its_model_typed_for_it(tmp_path: Path) -> None:
    family = load_family(model(tmp_path, LINES, model_type="internvl_chat"))
    prompt = build(family, [("user", (picture(), "<image>?", picture()))])
    whole = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    run = whole.encode("<image>", add_special_tokens=False).ids
    assert [prompt.token_ids[p.offset : p.offset + p.length] for p in prompt.pictures] == [run, run]
    assert whole.decode(prompt.token_ids, skip_special_tokens=False) == (
        "<|im_start|>user\n<image>\n<image>?\n<image><|im_end|>\n<|im_start|>assistant\n"
    )


def test_pages_of_a_document_are_pictures(family: Any) -> None:
    document = DocumentSource("data:", "messages[0].content[0].file.file_data")
    pages = (picture(10, 10), picture(20, 20))
    prompt = family.build_prompt([Message("user", (document, "?"))], [Opened(document, pages)])
    assert [placed.picture for placed in prompt.pictures] == list(pages)


def test_a_clip_is_refused(family: Any) -> None:
    source = ClipSource(("data:",), "messages[0].content[0].video_url.url", is_file=True)
    clip = Clip(np.zeros((4, 3), np.uint8), (1, 2, 2), "clip", (2, 2))
    with pytest.raises(BadRequest, match="shown pictures only"):
        family.build_prompt([Message("user", (source,))], [Opened(source, (clip,))])


def test_messages_that_the_template_refuses_are_the_clients_fault(tmp_path: Path) -> None:
    family = load_family(model(tmp_path, ALTERNATING))
    assert build(family, [("user", ("a",)), ("assistant", ("b",)), ("user", ("c",))]).token_ids
    with pytest.raises(BadRequest, match="refuses these messages: Conversation roles must alternate"):
        build(family, [("user", ("a",)), ("user", ("b",))])
