"""When the whole machine stood still: what no server on it is to be blamed for.

A virtual machine is now and then not run at all for a tenth of a second. A process before all others in priority, which
does nothing but look at the clock, sees these pauses. Where the kernel groups processes by session (autogroup), that
priority holds within the drill's own session only, and the watcher may take a part of the load for a pause.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Final

FIRST_OF_ALL: Final = -20
"""Niceness of the watcher. Whoever may not take it watches nothing: then it would see the load, too."""
LOOK_EVERY_S: Final = 0.003
PAUSE_S: Final = 0.02


@dataclass(slots=True)
class Pauses:
    """Times of pauses, by `time.perf_counter`, which on Linux is one clock for all processes."""

    seen: list[tuple[float, float]] = field(default_factory=list)

    def within(self, began: float, ended: float) -> bool:
        """Whether the machine stood still at a moment of that time."""
        return any(pause < ended and began < over for pause, over in self.seen)

    def listen(self, lines: IO[str]) -> None:
        """Take down what the watcher says, until it ends."""
        for line in lines:
            began, ended = line.split()
            self.seen.append((float(began), float(ended)))


@contextlib.contextmanager
def watched() -> Iterator[Pauses]:
    """Note pauses as long as the block runs."""
    pauses = Pauses()
    with subprocess.Popen([sys.executable, "-m", "tests.drills.pauses"], stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        listener = threading.Thread(target=pauses.listen, args=(watcher.stdout,))
        listener.start()
        try:
            yield pauses
        finally:
            watcher.kill()
            listener.join()


def watch() -> None:
    """Print every pause, until killed or left alone."""
    try:
        os.nice(FIRST_OF_ALL)
    except PermissionError:
        return
    mother, last = os.getppid(), time.perf_counter()
    while os.getppid() == mother:
        time.sleep(LOOK_EVERY_S)
        now = time.perf_counter()
        if now - last > PAUSE_S:
            print(last, now, flush=True)
        last = now


if __name__ == "__main__":
    watch()
