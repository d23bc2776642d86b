"""The table of settings, described: rows for tests, and the text of `ain-serve --help`."""

from __future__ import annotations

import shutil
import textwrap
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from server.settings.table import ACTIONS, PROGRAM, Group, Port, Settings, env_of, flag_of


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting as documentation shows it."""

    name: str
    """Also the key in the TOML file."""
    group: Group
    flag: str
    env: str
    allowed: str
    default: str
    description: str


def describe() -> list[SettingRow]:
    """Every setting in the order of the table: what the tests are made from."""
    return [_row(name, field) for name, field in Settings.model_fields.items()]


def _row(name: str, field: FieldInfo) -> SettingRow:
    flag = f"{flag_of(name)} {_metavar(name, field)}".rstrip()
    if kind_of(field) is bool:
        flag = f"--[no-]{flag[2:]}"
    description = field.description or ""
    return SettingRow(
        name, _extra(field, "group"), flag, env_of(name), allowed_values(field), _default(field), description
    )


def _extra(field: FieldInfo, key: str) -> Any:
    extra = field.json_schema_extra
    return extra[key] if isinstance(extra, dict) else None


def kind_of(field: FieldInfo) -> Any:
    """The type of a field without its Annotated and its `| None`."""
    kind: Any = field.annotation
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(arm for arm in get_args(kind) if arm is not type(None))
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


def _metavar(name: str, field: FieldInfo) -> str:
    kind = kind_of(field)
    if kind is bool:
        return ""
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    if name.endswith("_s"):
        return "SECONDS"
    number = "N" if kind is int else "X" if kind is float else ""
    return _extra(field, "metavar") or number or name.upper()


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value in ("", [], {}):
        return str(_extra(field, "unset"))
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def allowed_values(field: FieldInfo) -> str:
    """What a setting accepts, in words."""
    kind = kind_of(field)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if kind in (int, float):
        return f"a {'whole ' if kind is int else ''}number {_bounds(field)}".rstrip()
    if kind == list[Port]:
        return f"a list of port numbers {_bounds(get_args(Port)[1])}, separated by commas"
    words = {bool: "true or false", list: "a list, separated by commas", dict: "a JSON object", Path: "a path"}
    return words.get(get_origin(kind) or kind, "text")


def _bounds(field: FieldInfo) -> str:
    low = high = ""
    for bound in field.metadata:
        match bound:
            case object(ge=number):
                low = f"from {number}"
            case object(gt=number):
                low = f"above {number}"
            case object(le=number):
                high = f"to {number}" if low.startswith("from") else f"and at most {number}"
            case object(lt=number):
                high = f"below {number}"
    return f"{low} {high}".strip()


def help_text(width: int | None = None) -> str:
    """The text of --help, laid out for the terminal."""
    width = min(width or shutil.get_terminal_size().columns, 110) - 1
    rows = describe()
    lines = [f"usage: {PROGRAM} [SETTINGS...]", ""]
    lines += _wrapped(
        "An OpenAI-compatible server for AIN and the Qwen2-VL family. Without settings it serves the bundled demo model"
        " on this machine only. Every setting can be a flag, the environment variable in brackets, or a line in a TOML"
        " file (--config); flags win over variables, variables over the file.",
        width,
    )
    for group in dict.fromkeys(row.group for row in rows):
        lines += ["", f"{group}:"]
        for row in rows:
            if row.group == group:
                lines += _help_entry(row.flag, row.description, f"[{row.env}; default: {row.default}]", width)
    lines += ["", "Instead of serving:"]
    for flag, description in ACTIONS.items():
        lines += _help_entry("-h, --help" if flag == "--help" else flag, description, "", width)
    return "\n".join(lines) + "\n"


def _help_entry(flag: str, description: str, twin: str, width: int, column: int = 28) -> list[str]:
    text = _wrapped(description, width - column) + (_wrapped(twin, width - column) if twin else [])
    if len(flag) + 4 > column:
        text.insert(0, "")
    lines = [" " * column + line for line in text]
    lines[0] = f"  {flag}".ljust(column) + text[0]
    return [line.rstrip() for line in lines]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, 30), break_long_words=False, break_on_hyphens=False)
