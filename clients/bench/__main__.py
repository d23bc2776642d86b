"""Our server against vLLM's own on the same engine: `make bench`, or `python -m clients.bench`.

Each round starts every server afresh, gives it the same requests and ends it; every second round goes the other way
round (A B, B A, ...). Medians over the rounds are compared as ratios, ours/peer. Exit status 0: all goals hold.

What to trust. CPU seconds of the front end are read from the system for exactly its processes (cpu.py) and hardly
depend on what else runs. Requests, tokens and pages a second depend on everything: on a machine of few cores the
client, the front end and the engine share them, so those figures compare two whole systems on that machine, no more.

What is kept fair. Both get the same bodies, so both must answer with the same words and count the same tokens: the
table says where they did not. The engine is made to cost next to nothing (model.py). No picture is sent twice, and
vLLM's cache of prepared pictures is off, which saves it the work of filling it; only "the same again" repeats one
picture, with the caches of both at their defaults. Prefix caching is on for both. The client writes prepared bytes
and reads replies without looking at them (load.py).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
from rich.console import Console

from clients.bench import report
from clients.bench.cpu import memory_mib
from clients.bench.peers import OURS, RUST, VLLM, end_servers_on_sigterm, has_flag, running
from clients.bench.plan import (
    BUILD,
    NAMES,
    WORKERS,
    WORKERS_FLAG,
    Measured,
    Options,
    Visit,
    chosen_workloads,
    in_order,
    visits,
    worker_counts,
)
from clients.bench.rows import filled, rows
from clients.bench.workloads import Requests, Sample, Workload, measure

JSON_REPORT = Path("build/bench.json")
PLOT = Path("build/bench.png")
READY_WITHIN_S = 600.0
BUSY_CLIENT = 0.25
"""The share of a core from which on the client is worth a word."""
LOG_WIDTH = 120
FAILED = 1
FAILURES = (RuntimeError, OSError, psutil.Error)
"""Of a server, as `Bench.run` has them."""


def main() -> int:
    """Run the bench; returns the exit status."""
    arguments = _arguments()
    options = _options(arguments)
    end_servers_on_sigterm()
    console = Console()
    if not console.is_terminal:  # a log: as wide as the table
        console = Console(width=LOG_WIDTH)
    rounds: list[dict[str, Measured]] = []
    failure = ""
    if WORKERS in options.only and not has_flag(WORKERS_FLAG, options.checkout):
        console.print(f"This server has no flag {WORKERS_FLAG}: numbers of decode workers are not compared.")
        options = replace(options, only=options.only - {WORKERS})
    try:
        Bench(visits(options), console).run(arguments.rounds, rounds)
    except FAILURES as error:
        failure = f"The bench broke off: {error}"
    except KeyboardInterrupt:
        failure = "The bench was interrupted."
    if failure:
        console.print(failure, style="red", markup=False)
    status = _report(console, rounds)
    return FAILED if failure else status


class Bench:
    """Goes through the rounds, and says how far it is."""

    def __init__(self, found: Sequence[Visit], console: Console) -> None:
        self._visits = found
        self._console = console
        console.print("Making the requests ...")
        chosen = chosen_workloads(found)
        self._requests = Requests(chosen)
        for workload in chosen:
            self._requests.of(workload)
        self._done = 0
        self._steps = 0

    def run(self, count: int, rounds: list[dict[str, Measured]]) -> None:
        """Run so many rounds and add each to `rounds`, complete or not.

        Raises:
            RuntimeError, OSError, psutil.Error: a server did not start, refused its work, or broke off.
        """
        self._steps = count * sum(1 + len(visit.workloads) for visit in self._visits)
        for number in range(1, count + 1):
            measured: dict[str, Measured] = {}
            rounds.append(measured)
            for visit in in_order(self._visits, number):
                try:
                    self._make(visit, measured.setdefault(visit.peer.name, Measured()), number)
                except FAILURES as error:
                    if visit.peer.name != RUST:
                        raise
                    self._console.print(f"Goes on without {RUST}: {error}", markup=False)

    def _make(self, visit: Visit, measured: Measured, number: int) -> None:
        self._say(number, visit, "starting")
        with running(visit.peer, READY_WITHIN_S) as server:
            if visit.timed:
                measured.ready_s = server.seconds
            for workload in visit.workloads:
                sample = measure(workload, self._requests.of(workload), server)
                self._say(number, visit, _line(workload, sample))
                if sample.refused is None:
                    measured.samples[workload.name + visit.suffix] = sample
                elif visit.peer.name != RUST:
                    answer = sample.refused
                    raise RuntimeError(f"{visit.peer.name} answered {answer.status} to {workload.name}: {answer.text}")
            if visit.timed:
                measured.memory_mib = memory_mib(server.process.pid)

    def _say(self, number: int, visit: Visit, what: str) -> None:
        self._done += 1
        who = f"{visit.peer.name}{visit.suffix}"
        step = f"{self._done:3}/{self._steps}  round {number}  {who:7} {what}"
        self._console.print(step, highlight=False, markup=False, soft_wrap=True)


def _line(workload: Workload, sample: Sample) -> str:
    if sample.refused is not None:
        return f"{workload.name}: refused with status {sample.refused.status}"
    cpu, rate = 1e3 * sample.cpu_s / sample.requests, sample.requests / sample.seconds
    share = sample.client_cpu_s / sample.seconds
    client = f", the client took {share:.0%} of a core" if share > BUSY_CLIENT else ""
    return f"{workload.name}: {cpu:.2f} ms of CPU a request, {rate:.1f} requests/s{client}"


def _report(console: Console, rounds: list[dict[str, Measured]]) -> int:
    found = filled(rows(worker_counts(len(os.sched_getaffinity(0)))), rounds)
    if not found:
        return FAILED
    count = sum(OURS in measured and VLLM in measured for measured in rounds)
    title = f"{OURS} against {VLLM} (the peer): medians of {count} round{'s' * (count != 1)}"
    report.show(console, found, title)
    report.write_json(found, JSON_REPORT)
    try:
        report.draw(found, PLOT, title)
        console.print(f"Also in {JSON_REPORT} and {PLOT}.")
    except ImportError:
        console.print(f"Also in {JSON_REPORT}. For a plot install what tests need: make setup-dev.")
    return 0 if all(row["holds"] for row in found) else FAILED


def _options(arguments: argparse.Namespace) -> Options:
    rust: Path | None = arguments.rust
    if rust is not None and not rust.is_file():
        sys.exit(f"There is no file {rust}; python -m clients.bench.rust fetches it.")
    only = frozenset(arguments.only or NAMES)
    return Options(only, arguments.quick, rust, arguments.checkout)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m clients.bench",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(__doc__ or "").strip(),
        epilog=f"Writes {JSON_REPORT} and {PLOT}; keeps the models it makes in {BUILD}. Takes about 6 minutes a round.",
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="rounds (default: 5)")
    parser.add_argument(
        "--only", type=_names, metavar="NAME,...", help=f"measure only these: {', '.join(NAMES)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests: for a first look")
    rust = os.environ.get("VLLM_RUST_FRONTEND_PATH")
    parser.add_argument(
        "--rust",
        type=Path,
        default=Path(rust) if rust else None,
        metavar="FILE",
        help="vLLM's front end in Rust, as a third contender; python -m clients.bench.rust fetches it "
        "(default: VLLM_RUST_FRONTEND_PATH)",
    )
    parser.add_argument(
        "--checkout", type=Path, metavar="FOLDER", help="measure the server of another checkout of the project"
    )
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown) or 'name'}; choose from {', '.join(NAMES)}")
    return names


if __name__ == "__main__":
    raise SystemExit(main())
