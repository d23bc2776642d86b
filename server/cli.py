"""The command line: `ain-serve` and `python -m server`.

Only the standard library is imported here at load. Settings come first, so that a wrong flag is answered at once, and
the engine's slow libraries last.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from server import __version__

if TYPE_CHECKING:
    from server.settings import Settings

USAGE_ERROR = 2
INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(argv: list[str]) -> int:
    for flag, act in ACTIONS.items():
        if flag in argv:
            act()
            return 0
    from server.settings import SettingsError, load_settings

    try:
        settings = load_settings([flag for flag in argv if flag != "--print-settings"])
        if "--print-settings" in argv:
            print(as_toml(settings), end="")
            return 0
        from server.launch import serve

        return serve(settings)
    except SettingsError as error:
        print(f"ain-serve cannot start:\n{_indented(str(error))}\nAll settings: ain-serve --help", file=sys.stderr)
        return USAGE_ERROR


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _show_help() -> None:
    from server.settings import help_text

    print(help_text(), end="")


def _show_version() -> None:
    print(f"ain-serve {__version__}")


def _make_key() -> None:
    from server.admission.keys import hashed, new_key

    key = new_key()
    print(f"{key}\n{hashed(key)}")
    print("The first line is for the client; it is shown only now. The second is for the keys file.", file=sys.stderr)


ACTIONS: dict[str, Callable[[], None]] = {
    "-h": _show_help,
    "--help": _show_help,
    "--version": _show_version,
    "--new-key": _make_key,
}


# ---- Settings as a file -----------------------------------------------------------------------------


def as_toml(settings: Settings) -> str:
    """The settings as a file that --config reads back to the same ones, but for the keys, which stay secret."""
    lines = [f"# The settings in effect of ain-serve {__version__}. # marks what is not set, or is a secret."]
    group = ""
    from server.settings import describe

    for row in describe():
        if row.name in ("config", "engine_args"):  # a file does not name itself; a table must come last
            continue
        if row.group != group:
            group = row.group
            lines += ["", f"# ---- {group}"]
        lines.append(_toml_line(row.name, getattr(settings, row.name), row.default))
    lines += ["", "[engine_args]"]
    lines += [_engine_line(name, value) for name, value in settings.engine_args.items()]
    return "\n".join(lines) + "\n"


def _engine_line(name: str, value: Any) -> str:
    from server.settings import SECRET_NAME

    if SECRET_NAME.search(name):
        return f"# {json.dumps(name)}: set, not shown"
    return _toml_line(json.dumps(name), value, "null")


def _toml_line(name: str, value: Any, unset: str) -> str:
    if name == "api_keys":
        return f"# {name}: {len(value)} set, not shown" if value else f"{name} = []"
    if name == "metrics_key" and value is not None:
        return f"# {name}: set, not shown"
    try:
        return f"{name} = {_toml_value(value)}"
    except ValueError:
        return f"# {name}: {unset}"


def _toml_value(value: Any) -> str:
    """A value in TOML, which lacks null: raises ValueError for a value that holds one."""
    if value is None:
        raise ValueError
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(str(key))} = {_toml_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    # JSON's strings are TOML's, but for one control character.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
