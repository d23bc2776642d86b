"""The picture maker: pictures, a question about them and the one right answer, from a seed.

It needs Pillow and nothing else; the training, the evaluation and the tests of the server all draw from here.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from server.demo import questions
from server.demo.drawing import Picture, draw_clip, draw_shapes, draw_text, random_look, random_size
from server.demo.phrases import (
    COLOURS,
    KINDS,
    LANGUAGES,
    Language,
    Thing,
    compare,
    describe,
    describe_motion,
)
from server.demo.words import NO_WORDS, Words

LONGEST_NUMBER: Final = 7
EASTERN: Final = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
READING: Final = ("digits", "arabic_digits", "english_word", "arabic_word", "english_line", "arabic_line")
"""The tasks whose answer is the text in the picture."""


@dataclass(frozen=True)
class Sample:
    """One question with its pictures and its answer."""

    task: str
    language: Language
    prompt: str
    answer: str
    images: tuple[Picture, ...] = ()
    clip: tuple[Picture, ...] | None = None
    """Frames of a video, or None."""
    things: tuple[Thing, ...] = field(default=())
    """The shapes that were drawn: in one picture, or one in each of two."""


def make_sample(rng: random.Random, task: str, language: Language | None = None, words: Words = NO_WORDS) -> Sample:
    """Draw a sample of one of `TASKS`; `language` is that of the question, `words` what there is to read."""
    chosen: Language = rng.choice(LANGUAGES) if language is None else language
    return _MAKERS[task](rng, chosen, words)


def shapes_sample(rng: random.Random, language: Language) -> Sample:
    """One or two shapes to describe."""
    picture, things = draw_shapes(rng)
    prompt = questions.pick(rng, questions.DESCRIBE, language)
    return Sample("shapes", language, prompt, describe(things, language), (picture,), things=things)


def text_sample(rng: random.Random, task: str, language: Language, text: str) -> Sample:
    """A given text to read: a number or a word."""
    return Sample(task, language, reading_prompt(rng, task, language), text, (draw_text(rng, text),))


def reading_prompt(rng: random.Random, task: str, language: Language) -> str:
    """A question for a picture with text."""
    share = rng.random()
    if share < 0.15:
        return questions.pick(rng, questions.OPEN, language)
    if task == "digits" and share < 0.45:
        return questions.pick(rng, questions.READ_DIGITS, language)
    return questions.pick(rng, questions.READ, language)


def digits_sample(rng: random.Random, language: Language) -> Sample:
    """A number of one to seven digits."""
    return text_sample(rng, "digits", language, random_number(rng))


def random_number(rng: random.Random, longest: int = LONGEST_NUMBER) -> str:
    """A string of 1 to `longest` digits, zeros in front allowed."""
    return "".join(rng.choice("0123456789") for _ in range(rng.randint(1, longest)))


def arabic_digits_sample(rng: random.Random, language: Language) -> Sample:
    """A number in the digits of the Arab East."""
    return text_sample(rng, "arabic_digits", language, random_number(rng).translate(EASTERN))


def line_sample(rng: random.Random, language: Language, words: Words, script: Language) -> Sample:
    """Two or three words of one script in a line."""
    drawn = [words.draw(rng, script, longest=7) for _ in range(rng.choice((2, 2, 3)))]
    if script == "en":
        return text_sample(rng, "english_line", language, " ".join(random_case(rng, word) for word in drawn))
    return text_sample(rng, "arabic_line", language, " ".join(drawn))


def word_sample(rng: random.Random, language: Language, words: Words, script: Language) -> Sample:
    """A word in the given script; the language of the question is free."""
    word = words.draw(rng, script)
    if script == "en":
        return text_sample(rng, "english_word", language, random_case(rng, word))
    return text_sample(rng, "arabic_word", language, word)


def random_case(rng: random.Random, word: str) -> str:
    """Small letters mostly, sometimes a capital in front or throughout."""
    share = rng.random()
    return word.upper() if share < 0.15 else word.capitalize() if share < 0.35 else word


def pair_sample(rng: random.Random, language: Language) -> Sample:
    """Two pictures to compare, or one of them to describe."""
    first, second = draw_pair(rng)
    things = (first[1], second[1])
    images = (first[0], second[0])
    ask = rng.choice(("common", "common", "first", "second"))
    if ask == "common":
        prompt, answer = questions.pick(rng, questions.COMMON, language), compare(*things, language)
    elif ask == "first":
        prompt, answer = questions.pick(rng, questions.FIRST, language), describe(things[:1], language)
    else:
        prompt, answer = questions.pick(rng, questions.SECOND, language), describe(things[1:], language)
    return Sample("pair", language, prompt, answer, images, things=things)


def draw_pair(rng: random.Random, largest: int = 336) -> tuple[tuple[Picture, Thing], tuple[Picture, Thing]]:
    """Two pictures of one shape each; half of the pairs have the kind, the colour or both in common."""
    look = random_look(rng)
    kinds = [kind for kind in KINDS if kind != look[0]]
    colours = [colour for colour in COLOURS if colour != look[1]]
    shared = rng.choice(("kind", "colour", "both", "none", "none", "none"))
    kind = look[0] if shared in ("kind", "both") else rng.choice(kinds)
    colour = look[1] if shared in ("colour", "both") else rng.choice(colours)
    one, (left,) = draw_shapes(rng, random_size(rng, largest), [look])
    other, (right,) = draw_shapes(rng, random_size(rng, largest), [(kind, colour)])
    return (one, left), (other, right)


def clip_sample(rng: random.Random, language: Language, frames: int = 4) -> Sample:
    """A moving shape."""
    clip = draw_clip(rng, frames=frames)
    answer = describe_motion(clip.kind, clip.colour, clip.direction, language)
    return Sample("clip", language, questions.pick(rng, questions.WATCH, language), answer, clip=clip.frames)


def talk_sample(rng: random.Random, language: Language) -> Sample:
    """A question without a picture."""
    wordings, answer = rng.choice(questions.TALK[language])
    return Sample("talk", language, rng.choice(wordings), answer)


Maker = Callable[[random.Random, Language, Words], Sample]

_MAKERS: Final[dict[str, Maker]] = {
    "shapes": lambda rng, language, words: shapes_sample(rng, language),
    "digits": lambda rng, language, words: digits_sample(rng, language),
    "english_word": lambda rng, language, words: word_sample(rng, language, words, "en"),
    "arabic_word": lambda rng, language, words: word_sample(rng, language, words, "ar"),
    "pair": lambda rng, language, words: pair_sample(rng, language),
    "clip": lambda rng, language, words: clip_sample(rng, language),
    "talk": lambda rng, language, words: talk_sample(rng, language),
    "arabic_digits": lambda rng, language, words: arabic_digits_sample(rng, language),
    "english_line": lambda rng, language, words: line_sample(rng, language, words, "en"),
    "arabic_line": lambda rng, language, words: line_sample(rng, language, words, "ar"),
}

TASKS: Final = tuple(_MAKERS)
"""What the demo model can be asked."""
