"""Runs the drills, prints a table, and writes `build/drills.json`.

python -m tests.drills                       all of them
python -m tests.drills --only kill,drain     some
python -m tests.drills --short               the form that runs with the tests
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.drills.drill import Drill, Figure, Plan
from tests.drills.shared import close_shared

DRILLS: dict[str, str] = {
    "kill": "tests.drills.engine_faults:killed_engine",
    "hang": "tests.drills.engine_faults:hung_engine",
    "poison": "tests.drills.engine_faults:poisonous_request",
    "vanish": "tests.drills.clients_gone:vanished_clients",
    "stalled": "tests.drills.clients_gone:stalled_clients",
    "drain": "tests.drills.clients_gone:drained_server",
    "rolling": "tests.drills.balancers:rolling_restart",
    "replica": "tests.drills.balancers:killed_replica",
    "affinity": "tests.drills.balancers:image_affinity",
    "overload": "tests.drills.overload:overload",
    "adaptive": "tests.drills.overload:adaptive",
    "fairness": "tests.drills.fairness:fairness",
    "soak": "tests.drills.soak:soak",
}
"""Every drill by its name, as module:function, in the order in which they run."""

OF_BALANCERS = frozenset({"rolling", "replica", "affinity"})
LONG = frozenset({"overload", "adaptive", "fairness", "soak", "poison"})
"""Those that fill the machine for minutes to see what it bears, of which a few seconds show little, and the one that
has the engine start again and again. They are left out of `make test`; `make test-slow` has their short forms."""

RESULTS = Path("build/drills.json")


def main() -> int:
    """Run what was asked for; exit status 0 where every figure holds."""
    arguments = _arguments()
    figures: list[Figure] = []
    console = Console()
    for name in arguments.only or DRILLS:
        console.print(f"[bold]{name}[/bold] ...")
        began = time.monotonic()
        for figure in run(name, Plan(short=arguments.short)):
            figures.append(figure)
            console.print(f"  {figure.name}: {figure.value:g} {figure.unit} {_verdict(figure)}")
        console.print(f"  {time.monotonic() - began:.0f} s")
        _write(figures)
    close_shared()
    console.print(_table(figures))
    return 0 if all(figure.holds for figure in figures) else 1


def run(name: str, plan: Plan) -> list[Figure]:
    """The figures of one drill; one that breaks off has a figure that does not hold."""
    figures: list[Figure] = []
    try:
        figures.extend(load(name)(plan))  # those before a failure stay
    except Exception:
        traceback.print_exc()
        figures.append(Figure(f"{name}/completed", 0, "= 1", holds=False))
    return figures


def load(name: str) -> Drill:
    """A drill by its name. Each is imported only when it runs, for what it needs may not be there."""
    module, _, function = DRILLS[name].partition(":")
    drill: Drill = getattr(importlib.import_module(module), function)
    return drill


def _arguments() -> argparse.Namespace:
    description, _, epilog = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.drills",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", type=_names, metavar="NAME,...", help=f"of {', '.join(DRILLS)}")
    parser.add_argument("--short", action="store_true", help="less of everything")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(DRILLS):
        raise argparse.ArgumentTypeError(f"no such drill: {', '.join(sorted(unknown))}")
    return names


def _verdict(figure: Figure) -> str:
    if not figure.mark:
        return ""
    return f"({figure.mark}: [green]holds[/green])" if figure.holds else f"({figure.mark}: [red]MISSED[/red])"


def _table(figures: list[Figure]) -> Table:
    table = Table("drill", "figure", "mark", "holds")
    for figure in figures:
        holds = "" if not figure.mark else "yes" if figure.holds else "NO"
        table.add_row(figure.name, f"{figure.value:g} {figure.unit}", figure.mark, holds)
    return table


def _write(figures: list[Figure]) -> None:
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps([figure.row() for figure in figures], indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
