"""What SECURITY.md promises is held by tests that are there, and set by settings that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from server.settings import Settings
from server.settings.table import flag_of

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| resource")
]
FLAGS = {flag_of(name) for name in Settings.model_fields}


def test_there_are_rows() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:50])
def test_a_bound_has_a_test_and_its_settings_are_known(row: list[str]) -> None:
    resource, bound, setting, held_by = row
    assert resource
    assert bound
    assert set(re.findall(r"`(--[a-z-]+)`", setting)) <= FLAGS
    tests = re.findall(r"`(tests/[\w/]+\.py)`", held_by)
    assert tests
    assert all((ROOT / test).is_file() for test in tests)
