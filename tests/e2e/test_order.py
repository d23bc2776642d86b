"""Several pictures, several turns: every picture stands where the conversation puts it."""

from __future__ import annotations

import itertools
import random

import pytest
from PIL import Image

from server.demo import questions
from server.demo.drawing import draw_things
from server.demo.phrases import COLOURS, LANGUAGES, Language, Thing, compare, describe
from server.demo.pictures import draw_pair
from tests.e2e.asking import Client, Message, Part, image, text
from tests.e2e.marking import Question, ask_together, require

pytestmark = pytest.mark.e2e

SEED = 7_001


def shape(kind: str, colour: str, size: tuple[int, int] = (112, 112)) -> tuple[Image.Image, Thing]:
    """One shape in the middle."""
    thing = Thing(kind, colour, "in the middle", size[0] / 2, size[1] / 2, min(size) * 0.3, COLOURS[colour].tints[0])
    return draw_things(size, (250, 250, 250), [thing]), thing


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_picture_is_the_first_and_the_second_the_second(client: Client, language: Language) -> None:
    rng = random.Random(f"{SEED}/{language}")
    asked = []
    for _ in range(12):
        (one, first), (other, second) = draw_pair(rng, largest=168)
        for wordings, thing in ((questions.FIRST, first), (questions.SECOND, second)):
            parts = [image(one), image(other), text(wordings[language][0])]
            asked.append(Question(parts, describe([thing], language)))
    require(0.85, ask_together(client, asked), 24, f"{SEED}/{language}")


@pytest.mark.parametrize("language", LANGUAGES)
def test_two_pictures_are_compared(client: Client, language: Language) -> None:
    rng = random.Random(f"{SEED}/compare/{language}")
    asked = []
    for _ in range(12):
        (one, first), (other, second) = draw_pair(rng, largest=168)
        parts = [image(one), image(other), text(questions.COMMON[language][0])]
        asked.append(Question(parts, compare(first, second, language)))
    require(0.8, ask_together(client, asked), 12, f"{SEED}/compare/{language}")


def test_swapping_the_pictures_swaps_the_answer(client: Client) -> None:
    red, circle = shape("circle", "red")
    blue, star = shape("star", "blue", (168, 112))
    for (one, first), (other, second) in itertools.permutations([(red, circle), (blue, star)]):
        pictures = [image(one), image(other)]
        assert client.ask([*pictures, text(questions.FIRST["en"][0])]).text == describe([first], "en")
        assert client.ask([*pictures, text(questions.SECOND["en"][0])]).text == describe([second], "en")


ASKED = text("What is in the second picture?")
PICTURES = (image(shape("circle", "red")[0]), image(shape("star", "blue")[0]))
ORDERS: dict[str, list[Part]] = {
    "pictures, question": [*PICTURES, ASKED],
    "question, pictures": [ASKED, *PICTURES],
    "picture, question, picture": [PICTURES[0], ASKED, PICTURES[1]],
}


@pytest.mark.parametrize("order", ORDERS)
def test_text_and_pictures_may_come_in_any_order(client: Client, order: str) -> None:
    assert "blue star" in client.ask(ORDERS[order]).text


def test_a_picture_named_twice_counts_twice(client: Client) -> None:
    one, _ = shape("circle", "red")
    single = client.ask([image(one), text("Compare the images.")])
    double = client.ask([image(one), image(one), text("Compare the images.")])
    assert double.text == "both are red circles."
    assert double.prompt_tokens == single.prompt_tokens + 16 + 2  # 112 x 112 pixels, and their two markers


# ---- Conversations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("told", ["Answer briefly.", "أنت مساعد مفيد."])
@pytest.mark.parametrize("as_parts", [False, True], ids=["string", "parts"])
def test_a_system_message_comes_first(client: Client, role: str, told: str, as_parts: bool) -> None:
    picture, thing = shape("triangle", "green")
    system: Message = {"role": role, "content": [text(told)] if as_parts else told}
    asked: Message = {"role": "user", "content": [image(picture), text("Describe this image.")]}
    reply = client.ask(messages=[system, asked])
    assert reply.text == describe([thing], "en")


def test_an_earlier_turn_is_remembered(client: Client) -> None:
    """The second question shows nothing: only the first turn's picture can answer it, in either language."""
    picture, thing = shape("star", "purple")
    turns: list[Message] = [
        {"role": "user", "content": [image(picture), text("What is this?")]},
        {"role": "assistant", "content": describe([thing], "en")},
        {"role": "user", "content": "صف هذه الصورة."},
    ]
    assert client.ask(messages=turns).text == describe([thing], "ar")


def test_each_turn_has_its_own_picture(client: Client) -> None:
    first, circle = shape("circle", "red")
    second, square = shape("square", "green")
    turns: list[Message] = [
        {"role": "user", "content": [image(first), text("What is in the first picture?")]},
        {"role": "assistant", "content": describe([circle], "en")},
        {"role": "user", "content": [image(second), text("What is in the second picture?")]},
    ]
    assert "green square" in client.ask(messages=turns).text
    assert square.kind == "square"


def test_an_answer_is_the_same_whole_and_streamed(client: Client) -> None:
    picture, _ = shape("star", "orange", (140, 84))
    for question in ("Describe this image.", "صف هذه الصورة."):
        whole = client.ask([image(picture), text(question)])
        streamed = client.ask([image(picture), text(question)], stream=True)
        assert (whole.text, whole.reason, whole.usage["total_tokens"]) == (
            streamed.text,
            streamed.reason,
            streamed.usage["total_tokens"],
        )
