"""The demo model's sentences."""

import pytest

from server.demo.phrases import COLOURS, KINDS, Thing, compare, describe, describe_motion, name_thing


def thing(kind: str, colour: str, place: str = "at the top left") -> Thing:
    """A thing of which only the names matter."""
    return Thing(kind, colour, place, 0, 0, 1, (0, 0, 0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_arabic_adjectives_agree_with_the_noun(kind: str, colour: str) -> None:
    noun, adjective = name_thing(kind, colour, "ar").split()
    assert noun.endswith("ة") == KINDS[kind].feminine
    assert adjective.endswith(("اء", "ة")) == KINDS[kind].feminine


def test_english_article_follows_the_colour() -> None:
    assert name_thing("circle", "orange", "en") == "an orange circle"
    assert name_thing("circle", "red", "en") == "a red circle"


def test_describes_every_shape_with_its_place() -> None:
    things = [thing("circle", "red"), thing("square", "blue", "at the bottom right")]
    assert describe(things[:1], "en") == "a red circle at the top left."
    assert describe(things, "en") == "a red circle at the top left and a blue square at the bottom right."
    assert describe(things, "ar") == "دائرة حمراء في أعلى اليسار ومربع أزرق في أسفل اليمين."


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("star", "نجمة صفراء تتحرك نحو اليسار."), ("square", "مربع أصفر يتحرك نحو اليسار.")],
)
def test_arabic_verb_agrees_with_the_noun(kind: str, expected: str) -> None:
    assert describe_motion(kind, "yellow", "left", "ar") == expected


@pytest.mark.parametrize(
    ("second", "english", "arabic"),
    [
        (("circle", "red"), "both are red circles.", "كلاهما دائرة حمراء."),
        (("circle", "blue"), "both are circles.", "كلاهما دائرة."),
        (("star", "red"), "both are red.", "كلاهما أحمر."),
        (
            ("square", "blue"),
            "nothing in common: a red circle and a blue square.",
            "لا شيء مشترك: دائرة حمراء ومربع أزرق.",
        ),
    ],
)
def test_compares_kind_and_colour(second: tuple[str, str], english: str, arabic: str) -> None:
    first, other = thing("circle", "red"), thing(*second)
    assert compare(first, other, "en") == english
    assert compare(first, other, "ar") == arabic
