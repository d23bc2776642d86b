"""The picture maker: the same picture for the same seed, and an answer that says what is drawn."""

import random
from unittest.mock import patch

import pytest
from PIL import Image

from server.demo import drawing, fonts
from server.demo.phrases import COLOURS, DIRECTIONS, KINDS, LANGUAGES, PLACES, Language, Thing
from server.demo.pictures import TASKS, Sample, draw_pair, make_sample, text_sample
from server.demo.words import Words, is_arabic

WORDS = Words(english=("lantern", "river"), arabic=("مدرسة", "كتاب"))


def pictures_of(sample: Sample) -> list[Image.Image]:
    return [*sample.images, *(sample.clip or ())]


def colour_at(picture: Image.Image, thing: Thing) -> tuple[int, ...]:
    pixel = picture.getpixel((round(thing.x), round(thing.y)))
    assert isinstance(pixel, tuple)
    return pixel


@pytest.mark.parametrize("task", TASKS)
def test_one_seed_gives_one_sample(task: str) -> None:
    first, second = (make_sample(random.Random(7), task, words=WORDS) for _ in range(2))
    assert (first.prompt, first.answer) == (second.prompt, second.answer)
    assert [p.tobytes() for p in pictures_of(first)] == [p.tobytes() for p in pictures_of(second)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_asks_in_the_language_it_was_told(task: str, language: Language) -> None:
    for seed in range(20):
        sample = make_sample(random.Random(seed), task, language, WORDS)
        assert sample.task == task
        assert sample.language == language
        assert is_arabic(sample.prompt) == (language == "ar")


@pytest.mark.parametrize("seed", range(40))
def test_shapes_are_where_and_as_the_answer_says(seed: int) -> None:
    sample = make_sample(random.Random(seed), "shapes", "en")
    (picture,) = sample.images
    for thing in sample.things:
        assert colour_at(picture, thing) == thing.rgb
        assert f"{thing.colour} {thing.kind} {thing.place}" in sample.answer
        right, lower = thing.x > picture.width / 2, thing.y > picture.height / 2
        if thing.place != drawing.MIDDLE:
            assert drawing.CORNERS[(int(right), int(lower))] == thing.place


@pytest.mark.parametrize("seed", range(20))
def test_shapes_stay_inside_the_picture(seed: int) -> None:
    rng = random.Random(seed)
    picture, things = drawing.draw_shapes(rng)
    for thing in things:
        assert thing.radius <= thing.x <= picture.width - thing.radius
        assert thing.radius <= thing.y <= picture.height - thing.radius


def test_tints_keep_red_and_blue_apart() -> None:
    for red, _, blue in COLOURS["red"].tints:
        assert red > blue + 100
    for red, _, blue in COLOURS["blue"].tints:
        assert blue > red + 100


@pytest.mark.parametrize("seed", range(30))
def test_pairs_are_asked_about_in_order(seed: int) -> None:
    sample = make_sample(random.Random(seed), "pair", "en")
    assert len(sample.images) == len(sample.things) == 2
    for picture, thing in zip(sample.images, sample.things, strict=True):
        assert colour_at(picture, thing) == thing.rgb
    if "first" in sample.prompt:
        assert f"{sample.things[0].colour} {sample.things[0].kind}" in sample.answer
    if "second" in sample.prompt:
        assert f"{sample.things[1].colour} {sample.things[1].kind}" in sample.answer


def test_half_of_the_pairs_share_something() -> None:
    rng = random.Random(3)
    pairs = [draw_pair(rng, largest=64) for _ in range(200)]
    alike = sum(left.kind == right.kind or left.colour == right.colour for (_, left), (_, right) in pairs)
    assert 70 < alike < 130


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_clips_move_the_way_they_say(direction: str) -> None:
    clips = [drawing.draw_clip(random.Random(seed)) for seed in range(40)]
    for clip in [clip for clip in clips if clip.direction == direction]:
        assert len(clip.frames) == 4
        first, last = (ink_centre(frame) for frame in (clip.frames[0], clip.frames[-1]))
        axis = 0 if direction in ("left", "right") else 1
        moved = last[axis] - first[axis]
        assert (moved > 0) == (direction in ("right", "down"))
        assert abs(moved) > clip.frames[0].size[axis] * 0.3


def ink_centre(picture: Image.Image) -> tuple[float, float]:
    """Middle of everything that differs from the background."""
    background = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    from PIL import ImageChops

    box = ImageChops.difference(picture, background).getbbox()
    assert box is not None
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def test_sizes_cover_small_large_and_uneven_pictures() -> None:
    rng = random.Random(1)
    sizes = [drawing.random_size(rng) for _ in range(500)]
    assert min(min(size) for size in sizes) >= drawing.SMALLEST_SIDE
    assert max(max(size) for size in sizes) > 500
    assert any(width > 2 * height for width, height in sizes)


def test_draws_the_text_it_is_given() -> None:
    sample = text_sample(random.Random(1), "digits", "en", "4071")
    assert sample.answer == "4071"
    (picture,) = sample.images
    assert len(picture.getcolors(maxcolors=1 << 16) or ()) > 1


def test_arabic_letters_are_joined() -> None:
    font = fonts.pick_font(random.Random(1), "بيت", 40)
    joined = font.getlength("بيت")
    apart = sum(font.getlength(letter) for letter in "بيت")
    assert joined < apart


def test_says_what_to_install_for_arabic() -> None:
    with patch.object(fonts, "can_draw_arabic", return_value=False):
        with pytest.raises(fonts.ArabicLayoutMissing, match="libfribidi0"):
            drawing.draw_text(random.Random(1), "بيت")
        drawing.draw_text(random.Random(1), "house")


def test_jpeg_keeps_the_size_and_about_the_colour() -> None:
    picture = Image.new("RGB", (60, 80), (200, 30, 40))
    worn = drawing.as_jpeg(picture, 75)
    assert worn.size == picture.size
    pixel = worn.getpixel((30, 40))
    assert isinstance(pixel, tuple)
    assert all(abs(one - other) < 8 for one, other in zip(pixel, (200, 30, 40), strict=True))


def test_names_are_distinct() -> None:
    assert len({shade.masculine for shade in COLOURS.values()}) == len(COLOURS)
    assert len({kind.noun for kind in KINDS.values()}) == len(KINDS)
    assert len(set(PLACES.values())) == len(PLACES)
