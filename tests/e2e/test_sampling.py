"""What the sampling parameters promise, on the real engine."""

from __future__ import annotations

import unicodedata
from typing import Any, Literal

import pytest

from server.demo.drawing import draw_things
from server.demo.phrases import Thing
from tests.e2e.asking import ENDLESS, Client, Part, image, text

pytestmark = pytest.mark.e2e

RANDOM = {"temperature": 2.0}
"""As random as can be: the model's own top_k of 1 and top_p of 0.001 yield to it."""
REPLACEMENT = "\ufffd"


@pytest.fixture(scope="module")
def picture() -> Part:
    things = [
        Thing("circle", "red", "at the top left", 50, 40, 26, (220, 40, 40)),
        Thing("star", "blue", "at the bottom right", 160, 115, 30, (50, 80, 220)),
    ]
    return image(draw_things((224, 168), (250, 250, 250), things))


ENGLISH = text("Describe this image.")
ARABIC = text("صف هذه الصورة.")


def test_n_choices_differ_and_a_seed_brings_them_back(client: Client) -> None:
    asked: dict[str, Any] = {**RANDOM, "n": 3, "max_tokens": 24}
    content = "Tell me a story about rain."
    first = client.ask(content, seed=11, **asked)
    assert len(first.texts) == 3
    assert len(set(first.texts)) > 1
    assert client.ask(content, seed=11, **asked).texts == first.texts
    assert client.ask(content, seed=11, stream=True, **asked).texts == first.texts
    assert client.ask(content, seed=12, **asked).texts != first.texts


def test_usage_counts_every_choice_and_the_prompt_once(client: Client, picture: Part) -> None:
    one = client.ask([picture, ENGLISH])
    four = client.ask([picture, ENGLISH], n=4)
    assert four.texts == one.texts * 4
    assert four.prompt_tokens == one.prompt_tokens
    assert four.completion_tokens == 4 * one.completion_tokens


def test_greedy_is_the_default_of_the_demo_model(client: Client, picture: Part) -> None:
    greedy = client.ask([picture, ENGLISH]).text
    assert client.ask([picture, ENGLISH], temperature=None).text == greedy
    assert client.ask([picture, ENGLISH], temperature=2, top_k=1).text == greedy


@pytest.mark.parametrize(
    "penalties",
    [
        {"frequency_penalty": 0.5},
        {"presence_penalty": -0.5},
        {"repetition_penalty": 1.05},
        {"frequency_penalty": None, "presence_penalty": None, "top_p": None, "stop": None, "n": None, "seed": None},
    ],
    ids=str,
)
def test_penalties_are_taken(client: Client, penalties: dict[str, Any]) -> None:
    assert client.ask("Hello", max_tokens=8, **penalties).text


def test_penalties_act(client: Client) -> None:
    """A penalty below zero makes what was said likelier, and the answer runs to its limit."""
    endless = client.ask("Count to twenty.", max_tokens=120, **ENDLESS)
    assert (endless.reason, endless.completion_tokens) == ("length", 120)


# ---- Where an answer ends ---------------------------------------------------------------------------


def test_an_answer_ends_by_itself_or_at_its_limit(client: Client, picture: Part) -> None:
    whole = client.ask([picture, ENGLISH])
    assert whole.reason == "stop"
    for name in ("max_tokens", "max_completion_tokens"):
        cut = client.ask([picture, ENGLISH], **dict[str, Any]({name: 4}))
        assert (cut.reason, cut.completion_tokens) == ("length", 4)
        assert whole.text.startswith(cut.text)
        assert cut.text != whole.text


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_stop_strings_end_an_answer_in_front_of_them(
    client: Client, picture: Part, form: Literal["NFC", "NFD"], stream: bool
) -> None:
    arabic = client.ask([picture, ARABIC]).text
    stop = "أعلى"
    assert unicodedata.is_normalized("NFC", stop)
    assert not unicodedata.is_normalized("NFD", stop)
    assert stop in arabic
    reply = client.ask([picture, ARABIC], stop=unicodedata.normalize(form, stop), stream=stream)
    assert reply.reason == "stop"
    assert reply.text == arabic.split(stop)[0]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_first_stop_string_to_come_counts(client: Client, picture: Part, stream: bool) -> None:
    whole = client.ask([picture, ENGLISH]).text
    reply = client.ask([picture, ENGLISH], stop=["nowhere", " top", " circle at"], stream=stream)
    assert reply.text == whole.split(" circle at")[0]
    assert reply.reason == "stop"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_cut_inside_a_character_shows_no_half_of_it(client: Client, stream: bool) -> None:
    """Letters that the model never met make it say anything, often single bytes of a longer character; one alone is
    such a cut."""
    cut = 0
    for seed in range(6):
        reply = client.ask("é" * 40, seed=seed, n=8, max_tokens=1, stream=stream, **RANDOM)
        assert not any(REPLACEMENT in choice for choice in reply.texts)
        assert reply.completion_tokens == 8
        ends = zip(reply.texts, reply.reasons, strict=True)
        cut += sum(choice == "" and reason == "length" for choice, reason in ends)
    assert cut > 0, "no cut fell inside a character: choose other seeds"
