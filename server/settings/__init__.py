"""Every setting once, and the only room that reads the environment.

`table.py` has the rows, `sources.py` reads flags, variables and file, `help.py` describes the table to people.
"""

from server.settings.help import SettingRow, describe, help_text
from server.settings.sources import load_settings
from server.settings.table import (
    ENV_PREFIX,
    MIN_KEY_LENGTH,
    PROGRAM,
    SECRET_NAME,
    Settings,
    SettingsError,
    env_of,
    flag_of,
    is_loopback,
)

__all__ = [
    "ENV_PREFIX",
    "MIN_KEY_LENGTH",
    "PROGRAM",
    "SECRET_NAME",
    "SettingRow",
    "Settings",
    "SettingsError",
    "describe",
    "env_of",
    "flag_of",
    "help_text",
    "is_loopback",
    "load_settings",
]
