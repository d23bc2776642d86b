"""Asks many questions and counts the right answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from server.demo.pictures import Sample
from tests.e2e.asking import Client, Part, image, text


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
    misses = []
    for number, sample in enumerate(samples):
        said = client.ask(content(sample), stream=stream, max_tokens=64).text
        if said != sample.answer:
            misses.append(Miss(number, sample.prompt, sample.answer, said))
    return misses
