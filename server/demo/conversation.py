"""Samples as chats: where the picture stands, which system message, what was said before.

Rendered by hand to the same text as `chat_template.jinja`, since a template engine is too slow for millions of chats.
"""

import random
from dataclasses import dataclass, field
from typing import Any, Final

from server.demo import questions
from server.demo.drawing import Picture
from server.demo.phrases import LANGUAGES, Language, describe
from server.demo.pictures import READING, Sample, talk_sample

IMAGE: Final = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO: Final = "<|vision_start|><|video_pad|><|vision_end|>"

Message = dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    prompt: str
    answer: str
    images: tuple[Picture, ...] = ()
    clip: tuple[Picture, ...] | None = None
    question_first: bool = False

    def user_text(self) -> str:
        """What stands between the user's markers."""
        vision = (VIDEO if self.clip else "") + IMAGE * len(self.images)
        return self.prompt + vision if self.question_first else vision + self.prompt


@dataclass(frozen=True)
class Chat:
    """Turns under one system message."""

    turns: tuple[Turn, ...]
    system: str = field(default=questions.SYSTEM_DEFAULT)


def plain_turn(sample: Sample) -> Turn:
    """The sample as it is, picture first."""
    return Turn(sample.prompt, sample.answer, sample.images, sample.clip)


def vary(rng: random.Random, sample: Sample) -> Chat:
    """The sample in one of the ways people would put it."""
    turn = Turn(
        scuff(rng, sample.prompt), sample.answer, sample.images, sample.clip, question_first=rng.random() < 0.25
    )
    turns = [turn]
    share = rng.random()
    if share < 0.08:
        turns.insert(0, plain_turn(talk_sample(rng, sample.language)))
    elif share < 0.2 and sample.task != "talk":
        turns.append(_ask_again(rng, sample))
    system = rng.choice(questions.SYSTEMS) if rng.random() < 0.12 else questions.SYSTEM_DEFAULT
    return Chat(tuple(turns), system)


def _ask_again(rng: random.Random, sample: Sample) -> Turn:
    """A second question: about the same picture where a wording exists, else small talk."""
    language: Language = rng.choice(LANGUAGES)
    if sample.task == "shapes":
        return Turn(questions.pick(rng, questions.DESCRIBE, language), describe(sample.things, language))
    if sample.task in READING:
        return Turn(questions.pick(rng, questions.READ, language), sample.answer)
    if sample.task == "pair":
        at = rng.randrange(2)
        wordings = (questions.FIRST, questions.SECOND)[at]
        return Turn(questions.pick(rng, wordings, language), describe(sample.things[at : at + 1], language))
    return plain_turn(talk_sample(rng, language))


def scuff(rng: random.Random, prompt: str) -> str:
    """The prompt as typed in haste: without its end mark, in small letters, with a slip, or (mostly) untouched."""
    share = rng.random()
    if share < 0.1:
        return prompt.rstrip(".!?؟")
    if share < 0.18:
        return prompt.lower()
    if share < 0.22 and len(prompt) > 4:
        at = rng.randrange(len(prompt))
        return prompt[:at] + prompt[at + 1 :]
    return prompt


def chat_messages(chat: Chat) -> list[Message]:
    """The chat up to its last question, for a processor's `apply_chat_template`."""
    messages: list[Message] = []
    if chat.system != questions.SYSTEM_DEFAULT:
        messages.append({"role": "system", "content": chat.system})
    for number, turn in enumerate(chat.turns):
        text: list[Message] = [{"type": "text", "text": turn.prompt}]
        vision: list[Message] = [{"type": "video"}] if turn.clip else [{"type": "image"} for _ in turn.images]
        messages.append({"role": "user", "content": text + vision if turn.question_first else vision + text})
        if number < len(chat.turns) - 1:
            messages.append({"role": "assistant", "content": turn.answer})
    return messages
