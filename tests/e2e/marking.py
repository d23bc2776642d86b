"""Asks many questions and counts the right answers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from server.demo.pictures import Sample
from tests.e2e.asking import Client, Part, image, text

TOGETHER: Final = 8


@dataclass(frozen=True)
class Question:
    """What is asked, and the whole of the right answer."""

    content: Sequence[Part]
    right: str

    @property
    def words(self) -> str:
        """Its text, for people."""
        return " ".join(part["text"] for part in self.content if part["type"] == "text")


@dataclass(frozen=True)
class Miss:
    """A wrong answer."""

    number: int
    asked: str
    right: str
    said: str


def require(right: float, misses: Sequence[Miss], asked: int, seed: str) -> None:
    """Fail unless the share of right answers is high enough, and say which were wrong."""
    share = 1 - len(misses) / asked
    lines = [f"{miss.number}: {miss.asked!r} should be {miss.right!r}, was {miss.said!r}" for miss in misses]
    assert share >= right, f"seed {seed}: {share:.0%} right, {right:.0%} wanted\n" + "\n".join(lines)


def content(sample: Sample) -> list[Part]:
    """The sample as a user's message: pictures first, as the seed has them."""
    return [*map(image, sample.images), text(sample.prompt)]


def ask_all(client: Client, samples: Sequence[Sample], *, stream: bool = False) -> list[Miss]:
    """Ask every sample; those answered wrongly."""
    questions = [Question(content(sample), sample.answer) for sample in samples]
    return ask_together(client, questions, stream=stream, max_tokens=64)


def ask_together(client: Client, questions: Sequence[Question], **more: Any) -> list[Miss]:
    """Ask, `TOGETHER` at a time, as clients do: the engine then reads them in batches. Those answered wrongly."""

    def ask(question: Question) -> str:
        return client.ask(question.content, **more).text

    with ThreadPoolExecutor(TOGETHER) as pool:
        answers = list(pool.map(ask, questions))
    return [
        Miss(number, question.words, question.right, said)
        for number, (question, said) in enumerate(zip(questions, answers, strict=True))
        if said != question.right
    ]
