"""Reads the three sources of settings, flags, environment and file, and says which one is at fault."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_origin

from pydantic import (
    ValidationError,
)
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource

from server.settings.help import allowed_values, kind_of
from server.settings.table import (
    ACTIONS,
    ENV_PREFIX,
    MIN_KEY_LENGTH,
    PROGRAM,
    Settings,
    SettingsError,
    env_of,
    flag_of,
    parse_json,
    with_snake_names,
)


@dataclass(slots=True)
class Source:
    """Where settings come from: their values, what is wrong already, and how this source spells a setting's name."""

    values: dict[str, Any]
    problems: list[str]
    spell: Callable[[str], str]


def load_settings(argv: Sequence[str] | None = None) -> Settings:
    """Flags, environment and file merged into checked settings; `argv` defaults to the command line.

    Raises SettingsError with all that is wrong, one problem a line.
    """
    flags = _from_flags(sys.argv[1:] if argv is None else argv)
    environment = _from_environment()
    file = _from_file(flags, environment)
    sources = [flags, environment, file]
    problems = [problem for source in sources for problem in source.problems + _take_engine_args(source)]
    settings: Settings | None = None
    try:
        settings = Settings(**_merge(sources))
    except ValidationError as error:
        problems += [_explain(details, sources) for details in error.errors(include_url=False)]
    if problems or settings is None:
        raise SettingsError("\n".join(dict.fromkeys(problems)))
    return settings


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Argparse would print its usage and leave the process."""
        raise SettingsError(message.removeprefix("argument "))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(PROGRAM, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    for name, field in Settings.model_fields.items():
        kind = kind_of(field)
        if kind is bool:
            parser.add_argument(flag_of(name), dest=name, action=argparse.BooleanOptionalAction)
        else:
            repeatable = get_origin(kind) in (list, dict)
            parser.add_argument(flag_of(name), dest=name, action="append" if repeatable else "store")
    return parser


def _from_flags(argv: Sequence[str]) -> Source:
    namespace, unknown = _parser().parse_known_args(list(argv))
    values = vars(namespace)
    problems = _unknown_flags(unknown)
    for name in values.keys() - {"engine_args"}:
        if isinstance(values[name], list):
            values[name] = ",".join(values[name])
    if "engine_args" in values:
        pairs, wrong = _engine_pairs(values["engine_args"])
        values["engine_args"] = pairs
        problems += wrong
    return Source(values, problems, flag_of)


def _unknown_flags(unknown: list[str]) -> list[str]:
    known = [flag_of(name) for name in Settings.model_fields] + list(ACTIONS)
    flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
    if flags:  # what stands after an unknown flag is probably its value: not a problem of its own
        return [_unknown("flag", flag, known) for flag in flags]
    return [f"{word}: not a flag; to serve this model write --model {word}" for word in unknown]


def _engine_pairs(pairs: list[str]) -> tuple[dict[str, Any], list[str]]:
    values, problems = {}, []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if name and equals:
            values[name] = _json_or_text(text)
        else:
            problems.append(f"--engine-arg {pair}: write it as NAME=VALUE")
    return values, problems


def _json_or_text(text: str) -> Any:
    # Python's spelling counts too: as text, "False" would be true.
    python = {"true": True, "false": False, "none": None}
    try:
        return python[text.lower()] if text.lower() in python else json.loads(text)
    except ValueError:
        return text


KUBERNETES = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_\w+)?$")
KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
"""Kubernetes gives every pod variables for each Service: one named ain makes AIN_SERVICE_HOST and even AIN_PORT."""


def _from_environment() -> Source:
    known = [env_of(name) for name in Settings.model_fields]
    problems = [
        _unknown("variable", name, known)
        for name, value in sorted(os.environ.items())
        if name.upper().startswith(ENV_PREFIX)
        and name.upper() not in known
        and not (KUBERNETES.search(name) or KUBERNETES_ADDRESS.match(value))
    ]
    return Source(dict(EnvSettingsSource(Settings)()), problems, env_of)


def _from_file(flags: Source, environment: Source) -> Source:
    source = next((source for source in (flags, environment) if "config" in source.values), None)
    if source is None:
        return Source({}, [], str)
    path = Path(source.values["config"]).expanduser()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        return Source({}, [f"{source.spell('config')}: cannot read {path}: {error.strerror}"], str)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return Source({}, [f"{source.spell('config')}: {path} is not a TOML file: {error}"], str)
    known = [name for name in Settings.model_fields if name != "config"]
    problems = [f"{path}: " + _unknown("key", name, known) for name in values if name not in known]
    return Source({name: values[name] for name in values if name in known}, problems, lambda name: f"{path}: {name}")


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    if near:
        return f"{name}: unknown {what}; did you mean {near[0]}?"
    return f"{name}: unknown {what}; {PROGRAM} --help lists all"


def _take_engine_args(source: Source) -> list[str]:
    """Reads a source's engine_args; takes out, and reports, those that are settings of their own."""
    args = source.values.get("engine_args")
    try:
        args = parse_json(args)
    except ValueError:
        return []  # left for the check of all settings, which words it
    if not isinstance(args, dict):
        return []
    args = with_snake_names(args)
    named = [name for name in args if name in Settings.model_fields]
    source.values["engine_args"] = {name: value for name, value in args.items() if name not in named}
    return [f"{source.spell('engine_args')}: {name} is a setting of its own: {source.spell(name)}" for name in named]


def _merge(sources: Sequence[Source]) -> dict[str, Any]:
    """The first source wins; engine_args are merged name by name, so that a flag need not repeat the file's."""
    merged: dict[str, Any] = {}
    for source in reversed(sources):
        engine_args = merged.get("engine_args")
        merged |= source.values
        if isinstance(engine_args, dict) and isinstance(merged["engine_args"], dict):
            merged["engine_args"] = engine_args | merged["engine_args"]
    return merged


def _explain(details: ErrorDetails, sources: Sequence[Source]) -> str:
    """One of pydantic's errors as a line that names the setting as its source spells it."""
    context = details.get("ctx", {})
    name = str(details["loc"][0] if details["loc"] else context["name"])
    source = next((source for source in sources if name in source.values), sources[0])
    spelled = source.spell(name)
    if details["type"] == "conflict":
        return f"{spelled}: {details['msg']}"
    if details["type"] == "value_error":
        return f"{spelled}: {context['error']}"
    if name in ("api_keys", "metrics_key"):  # never shows its value
        return f"{spelled}: a key needs at least {MIN_KEY_LENGTH} characters; {PROGRAM} --new-key makes one"
    line = f"{spelled}: {_shown(source.values.get(name))} must be {allowed_values(Settings.model_fields[name])}"
    if source.spell is env_of and KUBERNETES_ADDRESS.match(str(source.values.get(name))):
        line += " (Kubernetes sets this variable for a Service of that name: set enableServiceLinks: false in the pod)"
    return line


SHOWN = 60
"""How many characters of a wrong value an error repeats."""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
