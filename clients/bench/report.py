"""The report: a table for the terminal, a plot, and a JSON file for whoever compares benches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

Rows = Sequence[dict[str, Any]]

BAR_HEIGHT_IN = 0.3
HOLDS, MISSED, WITHOUT_GOAL, RUST, LINES = "#3b7d5a", "#b5483a", "#9db4cc", "#e0a030", "#222222"


def show(console: Console, rows: Rows, title: str) -> None:
    """Print the table."""
    rust = any("rust" in row for row in rows)
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("")
    for name in ("ours", "peer", *(["Rust"] if rust else []), "unit", "ours/peer", "in rounds", "goal"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for row in rows:
        figures = [_number(row["ours"]), _number(row["peer"]), *([_number(row.get("rust"))] if rust else [])]
        spread = f"{_number(row['lowest_ratio'])}-{_number(row['highest_ratio'])}"
        table.add_row(row["name"], *figures, row["unit"], _number(row["ratio"]), spread, _goal(row), _verdict(row))
    console.print(table)


def _goal(row: dict[str, Any]) -> str:
    return "" if row["goal"] is None else f"{'>=' if row['more_is_better'] else '<='} {row['goal']:g}"


def _verdict(row: dict[str, Any]) -> str:
    if row.get("note"):
        return f"[red]{row['note']}"
    if row["goal"] is None:
        return ""
    return "[green]holds" if row["holds"] else "[red]missed"


def _number(value: float | None) -> str:
    """Three digits that count, without exponents."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write_json(rows: Rows, path: Path) -> None:
    """Write the rows as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2), encoding="utf-8")


def draw(rows: Rows, path: Path, title: str) -> None:
    """Draw the ratios as bars beside the marks of their goals, one panel for each direction.

    Raises:
        ImportError: matplotlib is not installed; it comes with what tests need.
    """
    from matplotlib.figure import Figure

    panels = [
        ("ours / peer: less is better", [row for row in rows if not row["more_is_better"]]),
        ("ours / peer: more is better", [row for row in rows if row["more_is_better"]]),
    ]
    panels = [(label, chosen) for label, chosen in panels if chosen]
    heights = [len(chosen) for _, chosen in panels]
    figure = Figure(figsize=(10, 1.6 + BAR_HEIGHT_IN * sum(heights) + 0.5 * len(panels)), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(len(panels), squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, (label, chosen) in zip(grid[:, 0], panels, strict=True):
        _bars(axes, chosen)
        axes.set_title(label, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _colour(row: dict[str, Any]) -> str:
    if not row["holds"]:
        return MISSED
    return WITHOUT_GOAL if row["goal"] is None else HOLDS


def _bars(axes: Any, rows: Rows) -> None:
    places = range(len(rows))
    ratios = [row["ratio"] for row in rows]
    axes.barh(places, ratios, color=[_colour(row) for row in rows], height=0.6)
    rust = [(place, row["rust"] / row["peer"]) for place, row in zip(places, rows, strict=True) if "rust" in row]
    if rust:
        axes.plot([ratio for _, ratio in rust], [place for place, _ in rust], "D", color=RUST, label="Rust / peer")
    goals = [(place, row["goal"]) for place, row in zip(places, rows, strict=True) if row["goal"] is not None]
    if goals:
        label = {"marker": "|", "markersize": 16, "markeredgewidth": 2.5, "linestyle": "none", "color": LINES}
        axes.plot([goal for _, goal in goals], [place for place, _ in goals], label="goal", **label)
    for place, row in zip(places, rows, strict=True):
        text = f"  {row['ratio']:.2f}  ({_number(row['ours'])} : {_number(row['peer'])} {row['unit']})"
        behind_all = max(row["ratio"], row["goal"] or 0, row.get("rust", 0) / row["peer"])
        axes.text(behind_all, place, text, va="center", fontsize=8)
    axes.axvline(1, color=LINES, linewidth=0.8, linestyle=":")
    axes.set_yticks(places, [row["name"] for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.45 * max([1.0, *ratios, *(goal for _, goal in goals), *(ratio for _, ratio in rust)]))
    if goals or rust:
        axes.legend(fontsize=8, loc="lower right")
