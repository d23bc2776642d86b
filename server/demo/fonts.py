"""The bundled fonts: pictures look the same on every machine, with or without fonts of its own."""

import random
from functools import lru_cache
from pathlib import Path
from typing import Final

from PIL import ImageFont, features

from server.demo.words import is_arabic

FONT_DIR: Final = Path(__file__).parent.parent / "fonts"
LATIN_FONTS: Final = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "NotoSans-Regular.ttf")
ARABIC_FONTS: Final = (
    "NotoNaskhArabic-Regular.ttf",
    "NotoSansArabic-Regular.ttf",
    "Amiri-Regular.ttf",
    "DejaVuSans.ttf",
)


class ArabicLayoutMissing(RuntimeError):
    """Pillow cannot join Arabic letters on this machine."""

    def __init__(self) -> None:
        super().__init__(
            "drawing Arabic needs Pillow's raqm layout, which loads the system library FriBiDi: "
            "install libfribidi0 (Debian, Ubuntu: apt-get install libfribidi0; macOS: brew install fribidi)"
        )


def can_draw_arabic() -> bool:
    """Whether letters would be joined and run from right to left."""
    return features.check("raqm") is True


@lru_cache(maxsize=1024)
def load_font(name: str, size: int, *, arabic: bool = False) -> ImageFont.FreeTypeFont:
    """A bundled font at `size` pixels. Latin uses the basic layout: it is several times faster."""
    engine = ImageFont.Layout.RAQM if arabic else ImageFont.Layout.BASIC
    return ImageFont.truetype(str(FONT_DIR / name), size, layout_engine=engine)


def pick_font(rng: random.Random, text: str, size: int) -> ImageFont.FreeTypeFont:
    """A font that has the letters of the text."""
    if not is_arabic(text):
        return load_font(rng.choice(LATIN_FONTS), size)
    if not can_draw_arabic():
        raise ArabicLayoutMissing
    return load_font(rng.choice(ARABIC_FONTS), size, arabic=True)
