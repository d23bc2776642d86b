"""The report's table, file and plot."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from clients.bench.report import draw, show, write_json


def row(name: str, ratio: float, goal: float | None, holds: bool, **more: object) -> dict[str, Any]:
    figures = {"name": name, "ours": 100 * ratio, "peer": 100.0, "ratio": ratio, "unit": "ms", "goal": goal}
    spread = {"lowest_ratio": ratio, "highest_ratio": 2 * ratio, "more_is_better": False}
    return {**figures, **spread, "holds": holds, **more}


ROWS = [
    row("text", 0.4, 0.5, True, rust=20.0),
    row("page", 0.9, 0.2, False),
    row("memory", 0.8, None, True),
    row("pages/s", 6.0, 5.0, True, more_is_better=True),
    row("odd", 0.1, 0.5, False, note="1 of 2 answers differ from the peer's"),
]


def test_the_table_says_what_holds() -> None:
    console = Console(file=io.StringIO(), width=200)
    show(console, ROWS, "Title")
    lines = {line.strip().partition("  ")[0]: line for line in console.file.getvalue().splitlines() if "  " in line}  # type: ignore[attr-defined]
    assert "<= 0.5" in lines["text"]
    assert "holds" in lines["text"]
    assert "0.4-0.8" in lines["text"]
    assert "missed" in lines["page"]
    assert ">= 5" in lines["pages/s"]
    assert not {"holds", "missed"} & set(lines["memory"].split())
    assert "answers differ" in lines["odd"]


def test_the_file_holds_the_rows(tmp_path: Path) -> None:
    write_json(ROWS, tmp_path / "build" / "bench.json")
    assert json.loads((tmp_path / "build" / "bench.json").read_text()) == ROWS


def test_the_plot_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    draw(ROWS, tmp_path / "build" / "bench.png", "Title")
    assert (tmp_path / "build" / "bench.png").read_bytes().startswith(b"\x89PNG")
