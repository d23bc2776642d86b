"""The tokenizer of the demo model: bytes, Arabic letters, and the words of its own sentences.

A word to be read must come out letter by letter, or the model would have to know whole words by sight. So every merge
of a sentence's word begins with the space in front of it: the same word at the start of an answer stays letters.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from server.demo import questions
from server.demo.phrases import COLOURS, DIRECTIONS, KINDS, PLACES
from server.demo.words import ARABIC_LETTERS

SPECIAL: Final = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
QWEN_PATTERN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ARABIC_SIGNS: Final = "،؟؛ـ٠١٢٣٤٥٦٧٨٩"
_ANSWER_WORDS: Final = (
    "circles squares triangles stars both are nothing in common and an moving تتحرك يتحرك نحو كلاهما لا شيء مشترك"
)

Merge = tuple[str, str]


def build_tokenizer() -> Tokenizer:
    """Byte-level BPE with the splitting rule of Qwen2-VL and merges made by rule, so nothing is left to a corpus."""
    merges = list(dict.fromkeys([*_letter_merges(), *_word_merges()]))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = list(dict.fromkeys([*alphabet, *(left + right for left, right in merges)]))
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    return tokenizer


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """The number of every special token."""
    ids = {text: tokenizer.token_to_id(text) for text in SPECIAL}
    return {text: number for text, number in ids.items() if number is not None}


def _pieces(text: str) -> list[str]:
    """The letters of a text in the byte alphabet: one string for each character, of one sign for each byte."""
    signs = _byte_signs()
    return ["".join(signs[byte] for byte in letter.encode()) for letter in text]


def _byte_signs() -> dict[int, str]:
    """GPT-2's printable sign for each byte."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + at) for at, byte in enumerate(hidden)}


def _letter_merges() -> Iterator[Merge]:
    """Every Arabic letter is one token: its two bytes."""
    for piece in _pieces(ARABIC_LETTERS + _ARABIC_SIGNS):
        yield piece[0], piece[1]


def _word_merges() -> Iterator[Merge]:
    """The words of our sentences grow from the space rightwards, one letter at a time."""
    for word in sorted(set(_sentence_words())):
        letters = _pieces(" " + word)
        for end in range(1, len(letters)):
            yield "".join(letters[:end]), letters[end]


def _sentence_words() -> Iterator[str]:
    """Words that follow a space in prompts and answers, without the signs around them."""
    for text in _sentences():
        for word in text.split()[1:]:
            bare = word.strip(".,:!?؟،")
            if bare.isalpha():
                yield bare


def _sentences() -> Iterable[str]:
    yield questions.SYSTEM_DEFAULT
    for wordings in (
        questions.DESCRIBE,
        questions.READ,
        questions.READ_DIGITS,
        questions.WATCH,
        questions.COMMON,
        questions.FIRST,
        questions.SECOND,
    ):
        for texts in wordings.values():
            yield from texts
    for topics in questions.TALK.values():
        yield from (answer for _, answer in topics)
    yield from questions.UNKNOWN.values()
    yield from (f"x {word}" for word in _ANSWER_WORDS.split())
    for shade in COLOURS.values():
        yield f"x {shade.name} {shade.masculine} {shade.feminine}"
    for kind in KINDS.values():
        yield f"x {kind.name} {kind.noun} و{kind.noun}"
    for places in (PLACES, DIRECTIONS):
        yield from (f"x {english} {arabic}" for english, arabic in places.items())
