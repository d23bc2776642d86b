"""JSON at its limits, and beyond."""

from __future__ import annotations

import json
from typing import Any, Final

from tests.hostile.case import Case, answered, refused, said
from tests.model import NAME

DEPTH: Final = 100_000
HELLO: Final = json.dumps(said("Hello")).encode()


def with_field(name: str, value: bytes) -> bytes:
    """A good body with a field more, written as it stands."""
    return HELLO[:-1] + b',"' + name.encode() + b'":' + value + b"}"


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in said("Hello").items() if key != name}


INVALID: Final = {
    "lists 100,000 deep": b"[" * DEPTH,
    "closed lists 100,000 deep": b"[" * DEPTH + b"]" * DEPTH,
    "objects 100,000 deep": b'{"a":' * DEPTH + b"1" + b"}" * DEPTH,
    "a field 100,000 deep": with_field("x", b"[" * DEPTH + b"]" * DEPTH),
    "a million objects": with_field("x", b"[" + b"{}," * 1_000_000 + b"{}]"),
    "an integer of 5,000 digits": with_field("seed", b"9" * 5000),
    "an integer of a million digits": with_field("x", b"9" * 1_000_000),
    "half of a surrogate pair": b'{"model":"\\ud83d"}',
    "the other half": with_field("user", b'"\\udc00"'),
    "surrogates the wrong way round": with_field("user", b'"\\udc00\\ud83d"'),
    "not UTF-8": b'{"model":"\xff\xfe"}',
    "overlong UTF-8": b'{"model":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"model":"\xed\xa0\x80"}',
    "UTF-16": HELLO.decode().encode("utf-16"),
    "UTF-32": HELLO.decode().encode("utf-32"),
    "a byte order mark": b"\xef\xbb\xbf" + HELLO,
    "a NUL after the end": HELLO + b"\x00",
    "two objects": HELLO * 2,
    "a comment": b"/* */" + HELLO,
    "a comma too many": HELLO[:-1] + b",}",
    "single quotes": HELLO.replace(b'"', b"'"),
    "cut off": HELLO[:-1],
    "nothing": b"",
    "spaces": b" " * 1_000_000,
    "a bare NUL": b"\x00",
    "a control character in a string": with_field("user", b'"\x01"'),
    "an unknown escape": with_field("user", b'"\\x41"'),
    "hexadecimal": with_field("seed", b"0x10"),
    "a leading zero": with_field("seed", b"01"),
    "a model named -Infinity": with_field("x", b"--Infinity"),
}
REFUSED: Final[dict[str, tuple[dict[str, Any] | bytes, str, str | None]]] = {
    "a list": (b"[]", "invalid_type", None),
    "a string": (b'"hello"', "invalid_type", None),
    "null": (b"null", "invalid_type", None),
    "NaN": (with_field("top_p", b"NaN"), "invalid_value", "top_p"),
    "Infinity": (with_field("top_p", b"Infinity"), "invalid_value", "top_p"),
    "1e999": (with_field("top_p", b"1e999"), "invalid_value", "top_p"),
    "-1e999": (with_field("top_p", b"-1e999"), "invalid_value", "top_p"),
    "a key twice": (with_field("model", b"5"), "invalid_type", "model"),
    "an empty object": (b"{}", "missing_required_parameter", "messages"),
    "messages an object": ({**said("x"), "messages": {"0": "x"}}, "invalid_type", "messages"),
    "messages nested": ({**said("x"), "messages": [[{"role": "user", "content": "x"}]]}, "invalid_type", "messages[0]"),
    "5,000 messages": (
        {**said("x"), "messages": [{"role": "user", "content": "x"}] * 5000},
        "invalid_value",
        "messages",
    ),
    "ten thousand tools": (
        {**said("x"), "tools": [{"type": "function", "function": {"name": "f"}}] * 10_000},
        "invalid_json",
        None,
    ),
    "3,000 parts": (said([{"type": "text", "text": ""}] * 3000), "invalid_value", "messages[0].content"),
    "no messages": (without("messages"), "missing_required_parameter", "messages"),
    "a part of an unknown kind": (
        said([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}]),
        "invalid_value",
        "messages[0].content[0].type",
    ),
    "a part's type an object": (said([{"type": {"type": "text"}}]), "invalid_value", "messages[0].content[0].type"),
    "a text of numbers": (said([{"type": "text", "text": 5}]), "invalid_type", "messages[0].content[0].text"),
    "half a million words": (said("word " * 500_000), "context_length_exceeded", "messages"),
    "a million letters without a space": (said("a" * 1_000_000), "context_length_exceeded", "messages"),
    "a million combining marks": (said("a" + "\u0301" * 1_000_000), "context_length_exceeded", "messages"),
    "a million ligatures": (said("\ufdfa" * 1_000_000), "context_length_exceeded", "messages"),
}
ANSWERED: Final = {
    "no words": said(""),
    "no model": without("model"),
    "a NUL in the text": said("a\x00b"),
    "all control characters": said("".join(map(chr, range(32))) + "\x7f\x80\u2028\ufeff\ufffe\U0010ffff"),
    "bidi overrides": said("\u202eabc\u202c\u2066\u2069"),
    "an escaped pair of surrogates": with_field("user", b'"\\ud83d\\ude00"'),
    "null where nothing is meant": {**said("Hello"), "stop": None, "n": None, "tools": None, "seed": None},
    "unknown fields": {**said("Hello"), "__proto__": {"a": 1}, "constructor": 1, "": 1, "a" * 10_000: 1},
    "messages of their own class": {**said("Hello"), "__class__": "str", "model_config": {}, "model_extra": {}},
}

NAMED: Final = {"no name": "", "a path": "../../../secret", "a long name": "x" * 100_000, "NULs": "\x00" * 10}

CASES: Final[dict[str, Case]] = {
    **{name: refused(body, "invalid_json") for name, body in INVALID.items()},
    **{name: refused(body, code, param) for name, (body, code, param) in REFUSED.items()},
    **{name: answered(body) for name, body in ANSWERED.items()},
    **{
        f"a model by {name}": refused(said("Hello", model=model), "model_not_found", "model", 404)
        for name, model in NAMED.items()
        if model != NAME
    },
}
