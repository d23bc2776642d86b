"""What the demo model says: names of colours, shapes, places and directions, and its sentences in both languages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

Language = Literal["en", "ar"]
LANGUAGES: Final[tuple[Language, ...]] = ("en", "ar")

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Colour:
    """A colour as it is named; Arabic adjectives agree with the gender of the shape."""

    name: str
    masculine: str
    feminine: str
    tints: tuple[Rgb, ...]
    """Red, green, blue of 0..255: several, since people differ in what they call by one name."""


@dataclass(frozen=True)
class Kind:
    """A kind of shape and its Arabic noun."""

    name: str
    noun: str
    feminine: bool


@dataclass(frozen=True)
class Thing:
    """One drawn shape, and where it really lies (pixels; `x` to the right, `y` downwards)."""

    kind: str
    colour: str
    place: str
    x: float
    y: float
    radius: float
    rgb: Rgb


Named = TypeVar("Named", Colour, Kind)


def _by_name(*entries: Named) -> dict[str, Named]:
    return {entry.name: entry for entry in entries}


COLOURS: Final = _by_name(
    Colour("red", "أحمر", "حمراء", ((220, 40, 40), (255, 0, 0), (200, 25, 25))),
    Colour("green", "أخضر", "خضراء", ((40, 160, 60), (0, 128, 0), (20, 200, 40), (0, 240, 0))),
    Colour("blue", "أزرق", "زرقاء", ((50, 80, 220), (0, 0, 255), (30, 60, 180))),
    Colour("yellow", "أصفر", "صفراء", ((235, 210, 50), (255, 255, 0), (250, 225, 20))),
    Colour("black", "أسود", "سوداء", ((20, 20, 20), (0, 0, 0))),
    Colour("orange", "برتقالي", "برتقالية", ((240, 140, 30), (255, 165, 0))),
    Colour("purple", "بنفسجي", "بنفسجية", ((140, 60, 180), (128, 0, 128))),
    Colour("gray", "رمادي", "رمادية", ((130, 130, 130), (150, 150, 150))),
)

KINDS: Final = _by_name(
    Kind("circle", "دائرة", feminine=True),
    Kind("square", "مربع", feminine=False),
    Kind("triangle", "مثلث", feminine=False),
    Kind("star", "نجمة", feminine=True),
)

PLACES: Final[dict[str, str]] = {
    "at the top left": "في أعلى اليسار",
    "at the top right": "في أعلى اليمين",
    "at the bottom left": "في أسفل اليسار",
    "at the bottom right": "في أسفل اليمين",
    "in the middle": "في الوسط",
}

DIRECTIONS: Final[dict[str, str]] = {"left": "اليسار", "right": "اليمين", "up": "الأعلى", "down": "الأسفل"}


def name_thing(kind: str, colour: str, language: Language) -> str:
    """`a red circle`, or the Arabic noun followed by the adjective in the noun's gender."""
    if language == "en":
        return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {kind}"
    noun, shade = KINDS[kind], COLOURS[colour]
    return f"{noun.noun} {shade.feminine if noun.feminine else shade.masculine}"


def describe(things: Sequence[Thing], language: Language) -> str:
    """Every shape with its place, in the order given."""
    parts = []
    for thing in things:
        place = thing.place if language == "en" else PLACES[thing.place]
        parts.append(f"{name_thing(thing.kind, thing.colour, language)} {place}")
    # The Arabic "and" is written together with the next word.
    return (" and " if language == "en" else " و").join(parts) + "."


def describe_motion(kind: str, colour: str, direction: str, language: Language) -> str:
    """The shape and the way it moves; the Arabic verb agrees with the noun too."""
    thing = name_thing(kind, colour, language)
    if language == "en":
        return f"{thing} moving {direction}."
    verb = "تتحرك" if KINDS[kind].feminine else "يتحرك"
    return f"{thing} {verb} نحو {DIRECTIONS[direction]}."


def compare(first: Thing, second: Thing, language: Language) -> str:
    """What two pictures share: kind and colour, one of the two, or nothing."""
    same_kind, same_colour = first.kind == second.kind, first.colour == second.colour
    if not same_kind and not same_colour:
        return _contrast(first, second, language)
    if language == "en":
        words = [first.colour] if same_colour else []
        words += [f"{first.kind}s"] if same_kind else []
        return f"both are {' '.join(words)}."
    if same_kind and same_colour:
        return f"كلاهما {name_thing(first.kind, first.colour, language)}."
    # The pronoun stands for "shape", which is masculine, and so is the colour alone.
    return f"كلاهما {KINDS[first.kind].noun if same_kind else COLOURS[first.colour].masculine}."


def _contrast(first: Thing, second: Thing, language: Language) -> str:
    one = name_thing(first.kind, first.colour, language)
    other = name_thing(second.kind, second.colour, language)
    if language == "en":
        return f"nothing in common: {one} and {other}."
    return f"لا شيء مشترك: {one} و{other}."
