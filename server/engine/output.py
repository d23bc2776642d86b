"""Where the engine's processes write, and that a full disk takes their words and not the engine.

Imports nothing heavy: the fork server runs this before anything else.
"""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TextIO


class _Unfailing(io.FileIO):
    """A file that loses what it has no room for."""

    def write(self, data: object) -> int:
        try:
            return super().write(data) or 0  # type: ignore[arg-type]
        except OSError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


def redirect_output(log_file: Path) -> TextIO:
    """Send file descriptors 1 and 2 of this process, and of those it starts, to a file; returns the terminal.

    Whatever torch and vLLM write, Python or C++, then goes to the log and never over what a person sees.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal = os.fdopen(os.dup(2), "w", encoding=sys.stderr.encoding, errors="replace")
    log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    let_writes_fail()
    return terminal


def let_writes_fail() -> None:
    """Have `print` and the like never raise in this process, nor in those forked from it.

    vLLM's processes print while they start: on a full disk that would keep an engine that died from coming back.
    """
    sys.stdout, sys.stderr = _unfailing(1), _unfailing(2)


def _unfailing(descriptor: int) -> TextIO:
    raw = _Unfailing(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="replace", line_buffering=True)
