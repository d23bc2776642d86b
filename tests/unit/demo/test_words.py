"""Words to read, and the split between training and evaluation."""

import random
from pathlib import Path

from server.demo.words import NO_WORDS, Words, is_arabic, is_held_out, load_words, made_up_word


def write_lists(folder: Path) -> None:
    (folder / "dict").mkdir()
    (folder / "hunspell").mkdir()
    english = [f"{first}{second}able" for first in "bcdfg" for second in "aeiou"]
    (folder / "dict/american-english").write_text("\n".join([*english, "Paris", "don't", "x"]), encoding="utf-8")
    arabic = [f"{first}{second}ار" for first in "بتثج" for second in "درسم"]
    (folder / "hunspell/ar.dic").write_text("\n".join(["16", *(f"{word}/Af" for word in arabic)]), encoding="utf-8")


def test_no_word_is_on_both_sides(tmp_path: Path) -> None:
    write_lists(tmp_path)
    training, held_out = (load_words(tmp_path, held_out=side) for side in (False, True))
    assert not set(training.english) & set(held_out.english)
    assert not set(training.arabic) & set(held_out.arabic)
    assert len(training.english) + len(held_out.english) == 25
    assert len(training.arabic) + len(held_out.arabic) == 16


def test_letter_case_does_not_move_a_word_across() -> None:
    words = [made_up_word(random.Random(seed), "en", 8) for seed in range(200)]
    assert [is_held_out(word) for word in words] == [is_held_out(word.upper()) for word in words]
    assert 5 < sum(map(is_held_out, words)) < 45


def test_missing_lists_are_empty_and_replaced(tmp_path: Path) -> None:
    words = load_words(tmp_path, held_out=False)
    assert words == NO_WORDS
    assert is_arabic(words.draw(random.Random(1), "ar"))
    assert words.draw(random.Random(1), "en").isascii()


def test_long_words_are_cut() -> None:
    words = Words(english=("lantern",))
    rng = random.Random(2)
    assert all(words.draw(rng, "en", 3) in "lantern" for _ in range(20))
    assert words.draw(rng, "en") == "lantern"
