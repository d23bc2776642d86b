"""Damages valid files in every way it knows, and watches what the decoders do with them.

    python -m tests.fuzz --minutes 10

A file must be decoded or refused by name. It is a fault when it crashes the process, hangs it, or raises anything else;
such files are kept in build/fuzz/, and `python -m tests.fuzz build/fuzz/...` tries them again. Documents that keep
PDFium busy until time or memory are out are counted and kept, but no fault: nothing but the limits of a decode worker
ends those.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Final, get_args

from tests.fuzz.child import Child, Verdict
from tests.fuzz.damage import damaged
from tests.fuzz.seeds import Kind, Seed, seeds

KEPT: Final = Path("build/fuzz")
REPORT_S: Final = 10.0
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Tally:
    """What has come of all files so far."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.fates: dict[Kind, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.refusals: dict[Kind, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.slowest: dict[Kind, tuple[float, str]] = dict.fromkeys(KINDS, (0.0, ""))
        self.faults: set[str] = set()

    def add(self, seed: Seed, verdict: Verdict, data: bytes) -> None:
        """Count a file, and keep it if it is one to look at."""
        self.fates[seed.kind][verdict.fate] += 1
        if verdict.fate == "refused":
            self.refusals[seed.kind][verdict.detail] += 1
        self.slowest[seed.kind] = max(self.slowest[seed.kind], (verdict.seconds, seed.name))
        if verdict.fate in ("fault", "limited"):
            path = _keep(seed, data)
            last_line = verdict.detail.strip().splitlines()[-1]
            new = verdict.fate == "fault" and last_line not in self.faults
            print(f"{verdict.fate.upper()} {path}: {verdict.detail if new else last_line}", flush=True)
            if verdict.fate == "fault":
                self.faults.add(last_line)

    def line(self) -> str:
        """A line to show that it goes on."""
        fates = sum(self.fates.values(), Counter[str]())
        seconds = time.monotonic() - self.started
        rate = fates.total() / max(seconds, 1e-3)
        return (
            f"{seconds // 60:3.0f}:{seconds % 60:02.0f}  {fates.total()} files, {rate:.0f} a second: {_counted(fates)}"
        )

    def summary(self) -> str:
        """What there is to know in the end."""
        lines = [self.line()]
        for kind, fates in self.fates.items():
            if not fates:
                continue
            seconds, name = self.slowest[kind]
            said = ", ".join(f"{code} {times}" for code, times in self.refusals[kind].most_common(6))
            lines.append(f"{kind:9} {fates.total()} files: {_counted(fates)}; slowest {seconds:.2f} s, from {name}")
            lines.append(f"          refused: {said}")
        return "\n".join(lines)


def main() -> int:
    """Damage files until the time is up, or try those named; the exit status."""
    options = _options()
    valid = seeds()
    with Child() as child:
        if options.files:
            return _try_again(options.files, valid, child)
        if not _all_valid(valid, child):
            return 1
        tally = Tally()
        with contextlib.suppress(KeyboardInterrupt):
            _damage_and_judge([seed for seed in valid if seed.kind in options.kinds], options, child, tally)
    print(tally.summary())
    return 1 if tally.faults else 0


def _damage_and_judge(valid: list[Seed], options: argparse.Namespace, child: Child, tally: Tally) -> None:
    print(f"{len(valid)} files to damage for {options.minutes:g} minutes, seed {options.seed}", flush=True)
    chance = Random(options.seed)
    of_kind = {kind: [seed for seed in valid if seed.kind == kind] for kind in options.kinds}
    reported = tally.started
    while time.monotonic() - tally.started < options.minutes * 60:
        alike = of_kind[chance.choice(options.kinds)]
        seed = chance.choice(alike)
        data = damaged(seed.data, [other.data for other in alike], chance)
        tally.add(seed, child.judge(seed.kind, data), data)
        if time.monotonic() - reported > REPORT_S:
            print(tally.line(), flush=True)
            reported = time.monotonic()


def _counted(fates: Counter[str]) -> str:
    return (
        f"{fates['decoded']} decoded, {fates['refused']} refused, {fates['limited']} limited, {fates['fault']} faults"
    )


def _all_valid(valid: list[Seed], child: Child) -> bool:
    """Whether all is well before any damage is done."""
    broken = [seed.name for seed in valid if child.judge(seed.kind, seed.data).fate != "decoded"]
    if broken:
        print(f"These are not decoded although nothing is wrong with them: {', '.join(broken)}")
    return not broken


def _try_again(files: list[Path], valid: list[Seed], child: Child) -> int:
    kinds = {Path(seed.name).suffix: seed.kind for seed in reversed(valid)}
    verdicts = []
    for file in files:
        named = next((kind for kind in KINDS if file.name.startswith(kind)), None)
        kind: Kind = named or kinds[file.suffix]
        verdicts.append(child.judge(kind, file.read_bytes()))
        print(f"{verdicts[-1].fate:8} {verdicts[-1].seconds:6.2f} s  {file}: {verdicts[-1].detail.strip()}")
    return 1 if any(verdict.fate == "fault" for verdict in verdicts) else 0


def _keep(seed: Seed, data: bytes) -> Path:
    KEPT.mkdir(parents=True, exist_ok=True)
    name = Path(seed.name)
    path = KEPT / f"{name.stem}-{hashlib.sha256(data).hexdigest()[:12]}{name.suffix}"
    path.write_bytes(data)
    return path


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to go on")
    parser.add_argument("--seed", type=int, default=0, help="other files for another number")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="what to damage")
    parser.add_argument("files", nargs="*", type=Path, help="instead: files to try again")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
