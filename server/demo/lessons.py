"""The order of the lessons. A model shown natural pictures from the start learns the sentences and sees nothing.

So every thing first stands in the middle of its own cell of 28 pixels, which is one token: that teaches which token to
look at. Then things leave their cells by and by, then the pictures become natural, and words grow letter by letter.
"""

import random
from typing import Final

from PIL import Image, ImageDraw

from server.demo import questions
from server.demo.drawing import CORNERS, Picture, draw_text, draw_things, paper, random_look, tint
from server.demo.fonts import pick_font
from server.demo.patches import CELL
from server.demo.phrases import LANGUAGES, Language, Thing, describe
from server.demo.pictures import Sample, clip_sample, make_sample, random_case, random_number, reading_prompt
from server.demo.words import Words, is_arabic, made_up_word

EARLY: Final = {
    "shapes": 4.0,
    "digits": 4.0,
    "english_word": 3.0,
    "arabic_word": 3.0,
    "pair": 1.5,
    "clip": 2.0,
    "talk": 0.4,
    "arabic_digits": 0.0,
    "english_line": 0.0,
    "arabic_line": 0.0,
}
LATE: Final = {
    "shapes": 1.6,
    "digits": 1.2,
    "english_word": 4.0,
    "arabic_word": 5.0,
    "pair": 2.2,
    "clip": 1.3,
    "talk": 0.5,
    "arabic_digits": 1.0,
    "english_line": 1.5,
    "arabic_line": 1.5,
}
CELLS_ONLY: Final = 0.06
"""Part of the training in which every thing has its cell."""
CELLS_END: Final = 0.22
"""Part after which cells are rare."""
WORDS_FULL: Final = 0.4
"""Part after which words have their whole length."""
RARELY: Final = 0.03
MADE_UP: Final = 0.25
"""Share of made-up words among the words: they teach to look instead of guessing."""


def lesson(rng: random.Random, progress: float, words: Words) -> Sample:
    """A sample for this moment of the training, `progress` from 0 to 1."""
    blend = min(1.0, progress / WORDS_FULL)
    weights = [EARLY[task] * (1 - blend) + LATE[task] * blend for task in EARLY]
    task = rng.choices(list(EARLY), weights)[0]
    language = rng.choice(LANGUAGES)
    in_cells = rng.random() < _cell_share(progress)
    if task == "shapes" and in_cells:
        return cell_shapes(rng, language, _jitter(rng, progress))
    if task in ("digits", "english_word", "arabic_word"):
        text = _text(rng, task, progress, words)
        prompt = reading_prompt(rng, task, language)
        picture = cell_text(rng, text, _jitter(rng, progress)) if in_cells else _line(rng, text, progress)
        return Sample(task, language, prompt, text, (picture,))
    if task == "clip":
        return clip_sample(rng, language, frames=rng.choice((4, 4, 4, 4, 3, 6, 8)) if progress > CELLS_END else 4)
    if task == "talk" and rng.random() < 0.3:
        return unknown_talk(rng, language, words)
    return make_sample(rng, task, language, words)


def _cell_share(progress: float) -> float:
    """Share of samples in cells: all, then less and less, then a few to keep the skill."""
    if progress < CELLS_ONLY:
        return 1.0
    left = (CELLS_END - progress) / (CELLS_END - CELLS_ONLY)
    return max(RARELY, 0.85 * left)


def _jitter(rng: random.Random, progress: float) -> float:
    """Pixels a thing may stray from the middle of its cell."""
    return rng.uniform(0.0, 10.0) * min(1.0, max(0.0, progress - CELLS_ONLY / 2) / (CELLS_END / 2))


def _longest(progress: float) -> int:
    """Letters a word may have: one at the start, all nine at `WORDS_FULL`."""
    return max(2, min(9, 2 + int(8 * progress / WORDS_FULL)))


def _text(rng: random.Random, task: str, progress: float, words: Words) -> str:
    if task == "digits":
        return random_number(rng)
    script: Language = "en" if task == "english_word" else "ar"
    longest = _longest(progress)
    made_up = rng.random() < MADE_UP
    word = made_up_word(rng, script, longest) if made_up else words.draw(rng, script, longest)
    return random_case(rng, word) if script == "en" else word


def _line(rng: random.Random, text: str, progress: float) -> Picture:
    """A line of text: of one modest size at first, then of any."""
    return draw_text(rng, text, rng.randint(24, 34) if rng.random() > progress / CELLS_END else None)


def cell_shapes(rng: random.Random, language: Language, jitter: float) -> Sample:
    """Shapes in the middles of the four quarters of a small picture."""
    side = CELL * rng.choice((2, 2, 4))
    half = side / 2
    things = []
    for corner in sorted(rng.sample(list(CORNERS), rng.choice((1, 1, 2))), key=lambda at: (at[1], at[0])):
        kind, colour = random_look(rng)
        radius = half * rng.uniform(0.3, 0.44) - jitter * 0.3
        stray = max(0.0, min(jitter, half / 2 - radius - 1))
        x = corner[0] * half + half / 2 + rng.uniform(-stray, stray)
        y = corner[1] * half + half / 2 + rng.uniform(-stray, stray)
        things.append(Thing(kind, colour, CORNERS[corner], x, y, radius, tint(rng, colour)))
    picture = draw_things((side, side), paper(rng), things)
    prompt = questions.pick(rng, questions.DESCRIBE, language)
    return Sample("shapes", language, prompt, describe(things, language), (picture,), things=tuple(things))


def cell_text(rng: random.Random, text: str, jitter: float) -> Picture:
    """Every letter in a cell of its own; Arabic letters stand apart and run from the right."""
    count = max(2, len(text))
    # Fewer than four cells in a row are below the smallest picture, and would be enlarged out of their cells.
    rows = 2 if count < 4 or rng.random() < 0.2 else 1
    picture = Image.new("RGB", (CELL * count, CELL * rows), paper(rng))
    draw = ImageDraw.Draw(picture)
    ink = (rng.randrange(70), rng.randrange(70), rng.randrange(70))
    font = pick_font(rng, text, rng.randint(20, 27))
    down = rng.randint(0, picture.height - CELL)
    for at, letter in enumerate(text):
        cell = count - 1 - at if is_arabic(text) else at
        left, top, right, bottom = font.getbbox(letter)
        x = cell * CELL + (CELL - right + left) / 2 - left + rng.uniform(-jitter, jitter) * 0.5
        y = down + (CELL - bottom + top) / 2 - top + rng.uniform(-1, 1)
        draw.text((x, y), letter, font=font, fill=ink)
    return picture


def unknown_talk(rng: random.Random, language: Language, words: Words) -> Sample:
    """Any other words without a picture, and the one answer to them."""
    prompt = " ".join(words.draw(rng, language) for _ in range(rng.randint(1, 7)))
    return Sample("talk", language, prompt + rng.choice(("", "?", ".")), questions.UNKNOWN[language])
