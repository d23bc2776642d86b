"""A model's own chat template, rendered so that what people write can be told from what the template says.

Templates are Jinja programs that join everything into one string, in which a typed `<|im_start|>` looks like the
template's own. So they are given marks in place of people's texts, and the marks are looked for in what comes out.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from server.core import Role
from server.families.family import UnknownFamilyError

Turn = tuple[Role, Sequence[str | None]]
"""Who speaks, and the texts of the turn; None stands for a picture."""
Rendered = list[str | int]
"""What the template says, and where a person's text stands its number, counted from 0 over all turns."""


class TemplateError(ValueError):
    """The template does not take these messages. Its words name no text of theirs."""


def chat_template(folder: Path) -> str | None:
    """The template in any of the places that it has had; None where the model has none."""
    plain = folder / "chat_template.jinja"
    if plain.is_file():
        return plain.read_text(encoding="utf-8")
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _read_object(folder / name).get("chat_template")
        if isinstance(template, list):  # several, each with a name
            template = {one["name"]: one["template"] for one in template}.get("default")
        if isinstance(template, str):
            return template
    return None


def template_words(folder: Path) -> frozenset[str]:
    """The words in a model's chat template: a name that is not among them is none that it reads."""
    return frozenset(re.findall(r"\w+", chat_template(folder) or "", re.ASCII))


class Template:
    """The template of the model in a folder."""

    def __init__(self, folder: Path) -> None:
        """Raises UnknownFamilyError for a model that has none."""
        source = chat_template(folder)
        if source is None:
            raise UnknownFamilyError(f"{folder} holds no chat template.")
        self._source = source
        self._names = _special_tokens(_read_object(folder / "tokenizer_config.json"))

    def render(self, turns: Sequence[Turn], *, picture: str | None = None) -> Rendered:
        """The whole prompt, up to where the assistant speaks.

        The content of a turn is given as a list of texts and pictures, and the template says what stands for a picture;
        or, with `picture`, as one text with a line for each part, in which `picture` stands for a picture.

        Raises:
            TemplateError: the template fails, or loses a text, or changes the order of texts.
        """
        from transformers.utils.chat_template_utils import render_jinja_template  # takes seconds to import

        nonce = secrets.token_hex(16)  # nobody who writes a message can know it
        messages: list[dict[str, Any]] = []
        count = 0
        for role, texts in turns:
            marks: list[str | None] = []
            for text in texts:
                marks.append(None if text is None else f"{nonce}n{count}n")
                count += text is not None
            messages.append({"role": role, "content": _parts(marks) if picture is None else _lines(marks, picture)})
        try:
            (rendered,), _ = render_jinja_template(
                [messages], chat_template=self._source, add_generation_prompt=True, **self._names
            )
        except Exception as error:  # a program of the model's makers can fail in any way
            raise TemplateError(re.sub(rf"{nonce}n\d+n", "...", str(error))[:200]) from error
        said = re.split(rf"{nonce}n(\d+)n", rendered)
        if said[1::2] != [str(number) for number in range(count)]:
            raise TemplateError("it leaves texts out, or changes their order")
        return [int(piece) if index % 2 else piece for index, piece in enumerate(said)]


def _parts(marks: Sequence[str | None]) -> list[dict[str, str]]:
    return [{"type": "image"} if mark is None else {"type": "text", "text": mark} for mark in marks]


def _lines(marks: Sequence[str | None], picture: str) -> str:
    return "\n".join(picture if mark is None else mark for mark in marks)


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """`bos_token` and its like, which templates call by name."""
    named = {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in config.items()
        if name.endswith("_token")
    }
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
