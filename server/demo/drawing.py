"""Draws shapes, text and clips as a person would: free places, many sizes, light and dark ink.

Every function takes a seeded `random.Random`, so one seed gives one picture on every machine.
"""

import io
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw, ImageFilter

from server.demo.fonts import pick_font
from server.demo.phrases import COLOURS, DIRECTIONS, KINDS, Rgb, Thing

Picture = Image.Image
Size = tuple[int, int]
"""Width and height in pixels."""
Look = tuple[str, str]
"""Kind and colour of a shape."""

CORNERS: Final = {
    (0, 0): "at the top left",
    (1, 0): "at the top right",
    (0, 1): "at the bottom left",
    (1, 1): "at the bottom right",
}
MIDDLE: Final = "in the middle"
SMALLEST_SIDE: Final = 56
"""Pixels: the smallest picture of the preprocessor's limits."""

_STAR_WAIST: Final = 0.42  # inner radius of a star over its outer one


@dataclass(frozen=True)
class Clip:
    """A shape moving across equally timed frames."""

    frames: tuple[Picture, ...]
    kind: str
    colour: str
    direction: str


def random_size(rng: random.Random, largest: int = 640) -> Size:
    """Sides of 56 to `largest` pixels; small ones are common, so that training is quick."""
    low, high = rng.choices(((56, 168), (168, 336), (336, 640)), (65, 25, 10))[0]
    low, high = min(low, largest), min(high, largest)
    return rng.randint(low, high), rng.randint(low, high)


def paper(rng: random.Random) -> Rgb:
    """A light background: white, nearly white or a pale tint."""
    kind = rng.random()
    if kind < 0.25:
        return 255, 255, 255
    if kind < 0.85:
        level = rng.randrange(225, 256)
        return level, level, max(0, level - rng.randrange(12))
    return rng.randrange(215, 256), rng.randrange(215, 256), rng.randrange(215, 256)


def tint(rng: random.Random, colour: str) -> Rgb:
    """One of the tints that carry this name, slightly off."""
    red, green, blue = rng.choice(COLOURS[colour].tints)
    return _shift(rng, red), _shift(rng, green), _shift(rng, blue)


def _shift(rng: random.Random, level: int, reach: int = 15) -> int:
    return max(0, min(255, level + rng.randint(-reach, reach)))


def paint(draw: ImageDraw.ImageDraw, kind: str, x: float, y: float, radius: float, rgb: Rgb) -> None:
    """Fill one shape around its centre (pixels)."""
    box = (x - radius, y - radius, x + radius, y + radius)
    if kind == "circle":
        draw.ellipse(box, fill=rgb)
    elif kind == "square":
        draw.rectangle(box, fill=rgb)
    elif kind == "triangle":
        draw.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=rgb)
    else:
        draw.polygon(_star(x, y, radius), fill=rgb)


def _star(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    points = []
    for corner in range(10):
        reach = radius if corner % 2 == 0 else radius * _STAR_WAIST
        angle = corner * math.pi / 5
        points.append((x + reach * math.sin(angle), y - reach * math.cos(angle)))
    return points


def draw_things(size: Size, background: Rgb, things: Sequence[Thing]) -> Picture:
    """Exactly these shapes on an even background."""
    picture = Image.new("RGB", size, background)
    draw = ImageDraw.Draw(picture)
    for thing in things:
        paint(draw, thing.kind, thing.x, thing.y, thing.radius, thing.rgb)
    return picture


def random_look(rng: random.Random) -> Look:
    """Any kind of shape in any colour."""
    return rng.choice(list(KINDS)), rng.choice(list(COLOURS))


def draw_shapes(
    rng: random.Random, size: Size | None = None, looks: Sequence[Look] | None = None
) -> tuple[Picture, tuple[Thing, ...]]:
    """One or two shapes, each in a quarter of its own, or a single one in the middle; read from the top left."""
    size = size or random_size(rng)
    if looks is None:
        looks = [random_look(rng) for _ in range(rng.choice((1, 1, 2)))]
    if len(looks) == 1 and rng.random() < 0.2:
        things = [_middle_thing(rng, size, looks[0])]
    else:
        corners = sorted(rng.sample(list(CORNERS), len(looks)), key=lambda corner: (corner[1], corner[0]))
        things = [_corner_thing(rng, size, corner, look) for corner, look in zip(corners, looks, strict=True)]
    return draw_things(size, paper(rng), things), tuple(things)


def _corner_thing(rng: random.Random, size: Size, corner: tuple[int, int], look: Look) -> Thing:
    half_width, half_height = size[0] / 2, size[1] / 2
    room = min(half_width, half_height)
    radius = room * rng.uniform(0.22, 0.44)
    margin = radius + room * 0.04  # so that no shape touches its neighbour's quarter
    x = corner[0] * half_width + rng.uniform(margin, half_width - margin)
    y = corner[1] * half_height + rng.uniform(margin, half_height - margin)
    return Thing(*look, CORNERS[corner], x, y, radius, tint(rng, look[1]))


def _middle_thing(rng: random.Random, size: Size, look: Look) -> Thing:
    x = size[0] * rng.uniform(0.46, 0.54)
    y = size[1] * rng.uniform(0.46, 0.54)
    return Thing(*look, MIDDLE, x, y, min(size) * rng.uniform(0.12, 0.4), tint(rng, look[1]))


def draw_text(rng: random.Random, text: str, font_size: int | None = None) -> Picture:
    """One line of text with a free margin. Arabic needs FriBiDi (see `fonts.ArabicLayoutMissing`)."""
    size = font_size or _font_size(rng)
    font = pick_font(rng, text, size)
    left, top, right, bottom = font.getbbox(text)
    width, height = math.ceil(right - left), math.ceil(bottom - top)
    canvas = (_canvas_side(rng, width, size), _canvas_side(rng, height, size))
    background, ink = _paper_and_ink(rng)
    picture = Image.new("RGB", canvas, background)
    x = _offset(rng, canvas[0] - width) - left
    y = _offset(rng, canvas[1] - height) - top
    ImageDraw.Draw(picture).text((x, y), text, font=font, fill=ink)
    return picture


def _font_size(rng: random.Random) -> int:
    low, high = rng.choices(((20, 30), (30, 44), (44, 80)), (40, 45, 15))[0]
    return rng.randint(low, high)


def _canvas_side(rng: random.Random, inside: int, font_size: int) -> int:
    widest = rng.choices((0.9, 2.5, 7.0), (75, 18, 7))[0]
    margin = rng.uniform(0.15, widest) * font_size
    return max(SMALLEST_SIDE, inside + 4 + round(margin))


def _offset(rng: random.Random, spare: int) -> int:
    """Where the ink begins: in the centre half of the time, as on a page."""
    return spare // 2 if rng.random() < 0.5 else rng.randint(min(2, spare), max(2, spare - 2))


def _paper_and_ink(rng: random.Random) -> tuple[Rgb, Rgb]:
    dark = (rng.randrange(70), rng.randrange(70), rng.randrange(70))
    if rng.random() < 0.15:
        colour = rng.choice(("red", "blue", "purple", "black"))
        dark = COLOURS[colour].tints[0]
    light = paper(rng)
    return (dark, light) if rng.random() < 0.1 else (light, dark)


def draw_clip(rng: random.Random, size: Size | None = None, frames: int = 4) -> Clip:
    """A shape that crosses most of the picture at an even speed."""
    size = size or random_size(rng, largest=224)
    kind, colour = random_look(rng)
    direction = rng.choice(list(DIRECTIONS))
    rgb, background = tint(rng, colour), paper(rng)
    radius = min(size) * rng.uniform(0.13, 0.2)
    along = size[0] if direction in ("left", "right") else size[1]
    across = size[1] if direction in ("left", "right") else size[0]
    start, end = radius + along * rng.uniform(0.02, 0.1), along - radius - along * rng.uniform(0.02, 0.1)
    if direction in ("left", "up"):
        start, end = end, start
    fixed = rng.uniform(radius + 2, across - radius - 2)
    pictures = []
    for step in range(frames):
        moved = start + (end - start) * step / max(1, frames - 1)
        x, y = (moved, fixed) if direction in ("left", "right") else (fixed, moved)
        pictures.append(draw_things(size, background, [Thing(kind, colour, "", x, y, radius, rgb)]))
    return Clip(tuple(pictures), kind, colour, direction)


def wear(rng: random.Random, picture: Picture, share: float = 0.2) -> Picture:
    """What pictures go through: with chance `share` a JPEG of quality 75 to 95, and less often a slight blur."""
    if rng.random() < share * 0.4:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8)))
    if rng.random() < share:
        picture = as_jpeg(picture, rng.randint(75, 95))
    return picture


def as_jpeg(picture: Picture, quality: int) -> Picture:
    """The picture after JPEG compression at `quality` (1 to 95)."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")
