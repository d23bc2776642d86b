"""Conversations to compare: every task and shape of conversation, from a seed.

They are written as qwen-vl-utils reads them (`{"type": "image", "image": "data:image;base64,..."}`), which the server
takes too, so that both sides get the very same dicts.
"""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

from server.demo import questions
from server.demo.drawing import draw_clip, draw_shapes, wear
from server.demo.phrases import LANGUAGES, Language
from server.demo.pictures import Sample, make_sample
from server.demo.words import Words, load_words

Part = dict[str, Any]
Message = dict[str, Any]

TASKS: Final = ("shapes", "digits", "english_word", "arabic_word", "pair", "talk")
"""Those of the demo model that need no video."""
LARGEST: Final = 420
"""Sides in pixels stay below this: qwen-vl-utils resizes to its own limits first and the processor to the model's
afterwards, so only for a picture that fits both is there one right resize."""


FRAME_SIDES: Final = (112, 168, 224)


@dataclass(frozen=True)
class Case:
    """A conversation and what it exercises."""

    name: str
    messages: tuple[Message, ...]


def cases(count: int, seed: int) -> Iterator[Case]:
    """`count` conversations, all kinds in turn; a longer run begins with the shorter one."""
    words = load_words(held_out=True)
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        rng = random.Random(f"{seed}/{number}")
        yield Case(f"{number} {kind}", tuple(KINDS[kind](rng, words)))


# ---- Parts ------------------------------------------------------------------------------------------


def image(picture: Image.Image, **budget: int) -> Part:
    """A picture in the form of the seed's own messages, losslessly."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return {"type": "image", "image": f"data:image;base64,{base64.b64encode(buffer.getvalue()).decode()}", **budget}


def video(frames: Sequence[Image.Image], **controls: int) -> Part:
    """A clip as a list of frames."""
    return {"type": "video", "video": [image(frame)["image"] for frame in frames], **controls}


def text(words: str) -> Part:
    """A text part."""
    return {"type": "text", "text": words}


def user(*parts: Part) -> Message:
    """A user's turn."""
    return {"role": "user", "content": list(parts)}


def noise(rng: random.Random) -> Image.Image:
    """A picture of nothing, at any size: what is said about it hangs on every pixel."""
    size = (rng.randint(40, LARGEST), rng.randint(40, LARGEST))
    coarse = np.random.default_rng(rng.randrange(1 << 32)).integers(0, 256, (rng.randint(2, 12), rng.randint(2, 12), 3))
    edges = rng.choice((Image.Resampling.BILINEAR, Image.Resampling.NEAREST))
    return Image.fromarray(coarse.astype(np.uint8)).resize(size, edges)


def shapes(rng: random.Random) -> Image.Image:
    """One or two shapes, in a picture of any size and shape."""
    picture, _ = draw_shapes(rng, (rng.randint(56, LARGEST), rng.randint(56, LARGEST)))
    return wear(rng, picture)


def _sample(rng: random.Random, words: Words, tasks: tuple[str, ...] = TASKS) -> Sample:
    while True:
        sample = make_sample(rng, rng.choice(tasks), words=words)
        if all(max(picture.size) <= LARGEST for picture in sample.images):
            return sample


def _asked(sample: Sample) -> list[Part]:
    return [*map(image, sample.images), text(sample.prompt)]


# ---- Kinds of conversation --------------------------------------------------------------------------


def _plain(task: str) -> Callable[[random.Random, Words], list[Message]]:
    return lambda rng, words: [user(*_asked(_sample(rng, words, (task,))))]


def _question_first(rng: random.Random, words: Words) -> list[Message]:
    parts = _asked(_sample(rng, words))
    return [user(parts[-1], *parts[:-1])]


def _system(rng: random.Random, words: Words) -> list[Message]:
    told = rng.choice(questions.SYSTEMS)
    content = told if rng.random() < 0.5 else [text(told)]
    return [{"role": "system", "content": content}, user(*_asked(_sample(rng, words)))]


def _several(rng: random.Random, words: Words) -> list[Message]:
    pictures = [shapes(rng) for _ in range(rng.randint(2, 5))]
    return [user(*map(image, pictures), text(questions.pick(rng, _about_several(rng), _language(rng))))]


def _interleaved(rng: random.Random, words: Words) -> list[Message]:
    language = _language(rng)
    parts = [image(shapes(rng)) for _ in range(rng.randint(1, 4))]
    parts += [text(questions.pick(rng, questions.DESCRIBE, language)) for _ in range(rng.randint(1, 3))]
    rng.shuffle(parts)
    return [user(*parts)]


def _turns(rng: random.Random, words: Words) -> list[Message]:
    messages: list[Message] = []
    for _ in range(rng.randint(1, 3)):
        sample = _sample(rng, words)
        messages += [user(*_asked(sample)), {"role": "assistant", "content": sample.answer}]
    last = _sample(rng, words)
    if any("image" in part for message in messages for part in message["content"] if isinstance(part, dict)):
        again = user(text(questions.pick(rng, questions.DESCRIBE, last.language)))
        return [*messages, rng.choice((again, user(*_asked(last))))]
    return [*messages, user(*_asked(last))]


def _budget(rng: random.Random, words: Words) -> list[Message]:
    budget = rng.choice(
        (
            {"max_pixels": rng.randint(20, 100) * 784},
            {"min_pixels": rng.randint(60, 120) * 784},
            {"min_pixels": 50_176, "max_pixels": 50_176 * 2},
            {"resized_height": rng.randint(56, 400), "resized_width": rng.randint(56, 400)},
        )
    )
    return [user(image(shapes(rng), **budget), text(questions.pick(rng, questions.DESCRIBE, _language(rng))))]


def _noise(rng: random.Random, words: Words) -> list[Message]:
    return [user(image(noise(rng)), text(questions.pick(rng, questions.OPEN, _language(rng))))]


def _clip(rng: random.Random, words: Words) -> list[Message]:
    """Sides are multiples of 56, to which qwen-vl-utils 0.0.14 snaps frames by mistake, and fit both of its limits."""
    side = rng.choice(FRAME_SIDES)
    clip = draw_clip(rng, (side, rng.choice(FRAME_SIDES)), frames=rng.choice((2, 3, 4, 6)))
    height, width = clip.frames[0].size[::-1]
    shown = video(clip.frames, resized_height=height, resized_width=width)
    return [user(shown, text(questions.pick(rng, questions.WATCH, _language(rng))))]


def _clip_resized(rng: random.Random, words: Words) -> list[Message]:
    sides = {"resized_height": rng.choice(FRAME_SIDES), "resized_width": rng.choice(FRAME_SIDES)}
    clip = draw_clip(rng, (rng.choice(FRAME_SIDES), rng.choice(FRAME_SIDES)), frames=4)
    return [user(video(clip.frames, **sides), text(questions.pick(rng, questions.WATCH, _language(rng))))]


def _clip_and_pictures(rng: random.Random, words: Words) -> list[Message]:
    side = rng.choice(FRAME_SIDES)
    clip = draw_clip(rng, (side, side), frames=4)
    parts = [video(clip.frames, resized_height=side, resized_width=side), image(shapes(rng)), image(shapes(rng))]
    rng.shuffle(parts)
    return [user(*parts, text(questions.pick(rng, questions.OPEN, _language(rng))))]


def _language(rng: random.Random) -> Language:
    return rng.choice(LANGUAGES)


def _about_several(rng: random.Random) -> questions.Wordings:
    return rng.choice((questions.FIRST, questions.SECOND, questions.COMMON, questions.DESCRIBE))


KINDS: Final[dict[str, Callable[[random.Random, Words], list[Message]]]] = {
    **{task: _plain(task) for task in TASKS},
    "question first": _question_first,
    "system": _system,
    "several": _several,
    "interleaved": _interleaved,
    "turns": _turns,
    "budget": _budget,
    "noise": _noise,
    "clip": _clip,
    "clip, resized": _clip_resized,
    "clip and pictures": _clip_and_pictures,
}
"""What conversations are like, by name."""
