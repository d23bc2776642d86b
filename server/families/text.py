"""Text to token ids, in such a way that no text can become a control token."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from server.families.family import UnknownFamilyError

SHORT_TEXT = 4096
"""Characters that are tokenised in a few milliseconds, whatever they are."""
CHARACTERS_LOOKED_AT = 8
"""For each token that there is room for: texts have three to five for a token."""


class Tokens:
    """The tokenizer of the model in a folder, split in two: plain text, and control tokens by name."""

    def __init__(self, folder: Path) -> None:
        document = _tokenizer_document(folder)
        added = document.get("added_tokens", [])
        self._control: dict[str, int] = {token["content"]: int(token["id"]) for token in added}
        # The longest first: where one control token begins as another does, the longer is meant.
        names = sorted(filter(None, self._control), key=len, reverse=True)
        self._controls = re.compile("(" + "|".join(map(re.escape, names)) + ")") if names else None
        # Without its added tokens the tokenizer cannot produce one, whatever is typed: `<|im_start|>` stays eleven
        # harmless letters and signs.
        document["added_tokens"] = []
        self._longest = _longest_token(document.get("model", {}))
        document["post_processor"] = None
        try:
            self._plain = Tokenizer.from_str(json.dumps(document))
        except Exception as error:  # the library raises nothing narrower
            raise UnknownFamilyError(f"{folder} holds no readable tokenizer: {error}") from error

    def control_id(self, name: str) -> int:
        """The id of a control token.

        Raises:
            UnknownFamilyError: the tokenizer has no such token.
        """
        if name not in self._control:
            raise UnknownFamilyError(f"The tokenizer has no control token {name}; this is no model of the family.")
        return self._control[name]

    def at_least(self, characters: int) -> int:
        """A lower bound of the tokens that so many characters cost, without looking at them.

        A token of a byte-level vocabulary covers at most as many bytes as it has letters there, and a character has at
        least one byte; Unicode's normal form C shortens a text to a third at most.
        """
        return characters // (3 * self._longest) if self._longest else 0

    def more_than(self, text: str, most: int) -> int:
        """A lower bound of the tokens of a long text: over `most` as soon as as much of its beginning shows it.

        A tokenizer that splits texts into words does not look beyond a word's end by more than a run of white space: a
        beginning has the same tokens in the whole text, but for its last two words. These go on behind the cut, and
        byte pairs may merge in another way there; half of their tokens count, though it is only the last few that
        can change. 0 where the vocabulary has one token for a whole stretch of unknown letters.
        """
        if not self._longest:
            return 0
        characters = max(most * CHARACTERS_LOOKED_AT, SHORT_TEXT)
        while characters < len(text):
            # In a batch, be it of one, others run meanwhile; only the slower of the two batches tells words.
            (encoding,) = self._plain.encode_batch([text[:characters]], add_special_tokens=False)
            words = [word for word in encoding.word_ids if word is not None]
            sure = sum(word < words[-1] - 1 for word in words)
            least = sure + (len(words) - sure) // 2
            if least > most:
                return least
            characters *= 4
        return 0

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text; never a control token's.

        Only in a batch, be it of one, does the library let others run meanwhile: 200,000 digits take 0.4 s. But it
        wakes threads for that, which costs more than a short text does.
        """
        if len(text) <= SHORT_TEXT:
            return list(self._plain.encode(text, add_special_tokens=False).ids)
        (encoding,) = self._plain.encode_batch_fast([text], add_special_tokens=False)
        return list(encoding.ids)

    def split(self, text: str) -> list[int | str]:
        """A text of the model's own, such as its template's: control tokens as ids, what is between them as it is."""
        if self._controls is None:
            return [text] if text else []
        return [self._control.get(piece, piece) for piece in self._controls.split(text) if piece]


def _longest_token(model: dict[str, Any]) -> int:
    """Letters of the longest token; 0 for vocabularies in which a whole stretch of unknown letters is one token."""
    fuses = model.get("type", "BPE") != "BPE" or (model.get("fuse_unk") and model.get("unk_token") is not None)
    if fuses and not model.get("byte_fallback"):
        return 0
    # Each entry is a token, or a pair of token and score.
    return max((len(entry if isinstance(entry, str) else entry[0]) for entry in model.get("vocab", ())), default=1)


def _tokenizer_document(folder: Path) -> dict[str, Any]:
    """The content of tokenizer.json, made from the older vocabulary files where a model ships only those."""
    path = folder / "tokenizer.json"
    try:
        if path.exists():
            return _object(path.read_text(encoding="utf-8"))
        from transformers import AutoTokenizer  # takes seconds to import, and few models need it

        backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
        return _object(backend.to_str())
    except (OSError, ValueError) as error:
        raise UnknownFamilyError(f"{folder} holds no readable tokenizer: {error}") from error


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("tokenizer.json is not a JSON object")
    return value
