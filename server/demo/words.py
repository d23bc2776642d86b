"""Where the words to read come from.

Word lists are read from the system at training time and are not shipped; without them, made-up words take their place.
Words whose hash falls under a fixed limit are for evaluation alone, so no run of the training ever sees them.
"""

import hashlib
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.demo.phrases import Language

DICTIONARIES: Final = Path("/usr/share")
ENGLISH_LIST: Final = "dict/american-english"  # Debian's wamerican
ARABIC_LIST: Final = "hunspell/ar.dic"  # Debian's hunspell-ar

ENGLISH_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
ARABIC_LETTERS: Final = "ءآأؤإئابةتثجحخدذرزسشصضطظعغفقكلمنهوىي"

_ENGLISH_WORD: Final = re.compile(r"[a-z]{2,9}")
_ARABIC_WORD: Final = re.compile(f"[{ARABIC_LETTERS}]{{2,8}}")
_MARKS: Final = re.compile("[\u064b-\u0652\u0640]")  # vowel signs and the stretching stroke
_HELD_OUT_SHARE: Final = 26  # of 256: about a tenth
_ENGLISH_VOWELS: Final = "aeiou"
_ARABIC_COMMON: Final = "االلمنيوترسدبهعقفةكح"


def is_held_out(word: str) -> bool:
    """Whether a word, in any letter case, is for evaluation only."""
    return hashlib.sha256(word.lower().encode()).digest()[0] < _HELD_OUT_SHARE


def is_arabic(text: str) -> bool:
    """Whether any letter of the Arabic block occurs."""
    return any("\u0600" <= letter <= "\u06ff" for letter in text)


def made_up_word(rng: random.Random, language: Language, longest: int) -> str:
    """A word that no dictionary holds, of 1 to `longest` letters."""
    length = rng.randint(min(2, longest), longest)
    if language == "en":
        letters = [rng.choice(_ENGLISH_VOWELS if rng.random() < 0.35 else ENGLISH_LETTERS) for _ in range(length)]
    else:
        letters = [rng.choice(_ARABIC_COMMON if rng.random() < 0.5 else ARABIC_LETTERS) for _ in range(length)]
    return "".join(letters)


@dataclass(frozen=True)
class Words:
    """Dictionary words by language; an empty list means made-up words."""

    english: tuple[str, ...] = ()
    arabic: tuple[str, ...] = ()

    def draw(self, rng: random.Random, language: Language, longest: int = 9) -> str:
        """A word of at most `longest` letters: mostly from the list, cut where it is longer."""
        listed = self.english if language == "en" else self.arabic
        if not listed:
            return made_up_word(rng, language, min(longest, 8))
        word = rng.choice(listed)
        if len(word) <= longest:
            return word
        start = rng.randrange(len(word) - longest + 1)
        return word[start : start + longest]


NO_WORDS: Final = Words()


def load_words(folder: Path = DICTIONARIES, *, held_out: bool) -> Words:
    """Read both dictionaries and keep one side of the split. A list that is missing comes back empty."""
    return Words(
        english=_keep(_lines(folder / ENGLISH_LIST), _ENGLISH_WORD, held_out),
        arabic=_keep(_lines(folder / ARABIC_LIST), _ARABIC_WORD, held_out),
    )


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _keep(lines: list[str], form: re.Pattern[str], held_out: bool) -> tuple[str, ...]:
    words = {_MARKS.sub("", line.split("/")[0].strip()) for line in lines}
    return tuple(sorted(word for word in words if form.fullmatch(word) and is_held_out(word) == held_out))
