"""JSON schemas of strangers, looked through before an engine reads them: what is too much or unknown is named by its
place. Each rule holds whatever the grammar's library does, which reads schemas of any size and says only that one is
wrong, not where.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

from server.errors import BadRequest, UnsupportedParameter

MAX_DEPTH = 32
"""Of schemas in schemas. OpenAI allows 10."""
MAX_SCHEMAS = 500
"""In one schema, it included. Five hundred optional properties take 76 ms to become a grammar, and twice as many four
times as long."""
MAX_VALUES = 1000
"""Of all `enum`, as OpenAI has it."""
MAX_CHARACTERS = 120_000
"""Of the whole schema as text."""
MAX_COUNT = 10_000
"""Of items and of characters. Larger grammars break in the middle of an answer."""
MAX_PATTERN = 1024
"""Characters of a regular expression."""
MAX_REPEATED = 10_000
"""Of counted repetitions in a regular expression, multiplied with each other as if each stood in the other."""
MAX_MERGED = 64
"""Ways to choose one branch of each `anyOf` that an `allOf` joins: each way becomes a schema of its own."""

ONE = ("items", "additionalProperties")
SEVERAL = ("prefixItems", "anyOf", "oneOf", "allOf")
NAMED = ("properties", "patternProperties", "$defs", "definitions")
COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
UNSUPPORTED = frozenset(
    {
        "not", "if", "then", "else", "uniqueItems", "contains", "minContains", "maxContains", "propertyNames",
        "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems",
        "$dynamicRef", "$recursiveRef", "x-guidance",
    }
)  # fmt: skip
"""Keywords that say what an answer must be and that no answer can be held to. Those that no draft of JSON Schema knows
are notes for people, as it has them."""
COUNTED = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")


def schema_text(schema: Mapping[str, Any], where: str) -> str:
    """The schema as compact JSON, its properties in their order, in which they are written.

    Raises:
        BadRequest: it is too large or refers to what is not there; `param` is the place, beginning with `where`.
        UnsupportedParameter: it has a keyword that no answer can be held to.
    """
    text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    if len(text) > MAX_CHARACTERS:
        raise bad(where, f"a schema has at most {MAX_CHARACTERS} characters")
    _Look(schema, where).through()
    return text


def check_pattern(pattern: str, where: str) -> None:
    """Refuse a regular expression that is too long or repeats too much; whether it is one, its reader says."""
    if len(pattern) > MAX_PATTERN:
        raise bad(where, f"a regular expression has at most {MAX_PATTERN} characters")
    if "\0" in pattern:
        raise bad(where, "a regular expression has no NUL")
    repeated = math.prod(max(1, int(found[2] or found[1])) for found in COUNTED.finditer(pattern))
    if repeated > MAX_REPEATED:
        raise bad(where, f"its counted repetitions multiply to more than {MAX_REPEATED}")


def bad(where: str, why: str) -> BadRequest:
    """The error for a part of a schema."""
    return BadRequest(f"Invalid '{where}': {why}.", param=where)


class _Look:
    """One look through one schema."""

    def __init__(self, root: Mapping[str, Any], where: str) -> None:
        self._root = root
        self._where = where
        self._schemas = self._values = 0
        self._ways: dict[int, int] = {}
        """Into how many schemas one turns when it is joined, by identity; 1 while that is being found out."""
        self._same: dict[int, list[int]] = {}
        """The schemas that speak of the same value as one, by identity: what it refers to, and its alternatives."""
        self._places: dict[int, str] = {}
        """Where each was found, by identity."""
        self._referred: list[tuple[Any, str]] = []

    def through(self) -> None:
        """Look at every schema in it; not by recursion, whose depth a stranger would choose."""
        waiting: list[tuple[Any, str, int]] = [(self._root, self._where, 1)]
        while waiting or self._referred:
            # What is only referred to comes last: most of it has a place of its own.
            schema, where, depth = waiting.pop() if waiting else (*self._referred.pop(), 1)
            if id(schema) in self._places:
                continue
            self._schemas += 1
            if self._schemas > MAX_SCHEMAS:
                raise bad(self._where, f"it holds more than {MAX_SCHEMAS} schemas")
            if depth > MAX_DEPTH:
                raise bad(where, f"schemas stand in schemas at most {MAX_DEPTH} deep")
            if isinstance(schema, bool):
                continue
            if not isinstance(schema, dict):
                raise bad(where, "a schema is an object, true or false")
            self._places[id(schema)] = where
            self._check(schema, where)
            waiting += [(inner, place, depth + 1) for inner, place in _inside(schema, where)]
        self._require_end()

    def _check(self, schema: Mapping[str, Any], where: str) -> None:
        for name in UNSUPPORTED & schema.keys():
            raise UnsupportedParameter(f"'{where}.{name}' is not supported.", param=f"{where}.{name}")
        for name in COUNTS:
            count = schema.get(name, 0)
            if not isinstance(count, int | float) or not 0 <= count <= MAX_COUNT:
                raise bad(f"{where}.{name}", f"it is a number from 0 to {MAX_COUNT}")
        self._check_values(schema, where)
        if isinstance(pattern := schema.get("pattern", ""), str):
            check_pattern(pattern, f"{where}.pattern")
        if isinstance(patterns := schema.get("patternProperties"), dict):
            for pattern in patterns:
                check_pattern(pattern, f"{where}.patternProperties")
        same = [
            one for name in ("anyOf", "oneOf", "allOf") if isinstance(schema.get(name), list) for one in schema[name]
        ]
        if "$ref" in schema:
            same.append(self._follow(schema["$ref"], f"{where}.$ref"))
        self._same[id(schema)] = [id(one) for one in same if isinstance(one, dict)]
        if self._ways_of(schema) > MAX_MERGED:
            raise bad(where, f"its 'allOf' joins alternatives in more than {MAX_MERGED} ways")

    def _check_values(self, schema: Mapping[str, Any], where: str) -> None:
        values = schema.get("enum", [])
        if not isinstance(values, list) or ("enum" in schema and not values):
            raise bad(f"{where}.enum", "it is a list of at least one value")
        self._values += len(values)
        if self._values > MAX_VALUES:
            raise bad(f"{where}.enum", f"a schema has at most {MAX_VALUES} values in all 'enum' together")

    def _require_end(self) -> None:
        """A schema may hold itself in a part of a value, as trees do, but not stand for the very value it describes."""
        try:
            TopologicalSorter(self._same).prepare()
        except CycleError as error:
            places = [self._places[one] for one in error.args[1] if one in self._places]
            raise bad(min(places, default=self._where), "it leads back to itself without an end") from None

    def _follow(self, reference: Any, where: str) -> Any:
        target = self._target(reference)
        if not isinstance(target, dict | bool):
            raise bad(where, "it leads to no schema in this one")
        self._referred.append((target, where))
        return target

    def _target(self, reference: Any) -> Any:
        """What a reference inside of this schema names (RFC 6901); None for any other."""
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            return None
        target: Any = self._root
        for step in reference.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            match target:
                case dict():
                    target = target.get(name)
                case list() if name.isdecimal() and len(name) < 5 and int(name) < len(target):
                    target = target[int(name)]
                case _:
                    return None
        return target

    def _ways_of(self, schema: Any) -> int:
        if not isinstance(schema, dict):
            return 1
        if id(schema) in self._ways:
            return self._ways[id(schema)]
        self._ways[id(schema)] = 1
        ways = self._ways_of(self._target(schema["$ref"])) if "$ref" in schema else 1
        for name in ("anyOf", "oneOf"):
            if isinstance(branches := schema.get(name), list) and (ways > 1 or "allOf" in schema or len(branches)):
                ways *= max(1, sum(map(self._ways_of, branches)))
        if isinstance(joined := schema.get("allOf"), list):
            ways *= math.prod(min(self._ways_of(one), MAX_SCHEMAS) for one in joined)
        self._ways[id(schema)] = min(ways, MAX_SCHEMAS)
        return self._ways[id(schema)]


def _inside(schema: Mapping[str, Any], where: str) -> Iterator[tuple[Any, str]]:
    for name in ONE:
        if name in schema:
            yield schema[name], f"{where}.{name}"
    for name in SEVERAL:
        if name in schema:
            if not isinstance(schema[name], list):
                raise bad(f"{where}.{name}", "it is a list of schemas")
            yield from ((inner, f"{where}.{name}[{index}]") for index, inner in enumerate(schema[name]))
    for name in NAMED:
        if name in schema:
            if not isinstance(schema[name], dict):
                raise bad(f"{where}.{name}", "it is an object of schemas")
            yield from ((inner, f"{where}.{name}.{_shown(key)}") for key, inner in schema[name].items())


def _shown(name: str) -> str:
    return name if len(name) <= 64 else name[:64] + "..."
