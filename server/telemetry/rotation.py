"""Keeps the engine's own log within bounds, whoever writes to it.

Several processes have that file open: Python's logging in each of vLLM's, and the descriptors 1 and 2 of all of them,
to which C++ code writes. None of them can be told to open another file. But all of them append (O_APPEND), so the file
can be copied to FILE.1 and cut to nothing under their hands: their next line is its first. What is written between the
end of the copy and the cut, some microseconds, is lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

import anyio.to_thread

from server.telemetry import metrics

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
PIECE = 1 << 20
"""Bytes copied at once."""


async def keep_bounded(log_file: Path, max_bytes: int, every_s: float = LOOK_EVERY_S) -> None:
    """Keep a log and the file before it within `max_bytes` together, until cancelled.

    Between two looks, `every_s` seconds, the log may grow as fast as its writers do. What goes wrong is told once.
    """
    last = None
    while True:
        problem = await anyio.to_thread.run_sync(_look, log_file, max_bytes // 2)
        if problem not in {None, last}:
            log.warning("the engine's log, %s, cannot be kept within bounds: %s", log_file, problem)
        last = problem
        await asyncio.sleep(every_s)


def _look(log_file: Path, max_bytes: int) -> str | None:
    """Rotate the log if need be, measure it, and tell what stood in the way."""
    try:
        rotate(log_file, max_bytes)
        metrics.LOG_BYTES.set(log_file.stat().st_size)
        metrics.LOG_DISK_FREE_BYTES.set(shutil.disk_usage(log_file.parent).free)
    except FileNotFoundError:
        return None  # somebody has taken it away; whoever writes to it still does, out of sight
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def rotate(log_file: Path, max_bytes: int) -> bool:
    """Move what a log holds to FILE.1, once it is over `max_bytes`; of more than that, the end. Tells whether it did.

    Where FILE.1 cannot be written, on a full disk above all, the log is cut nevertheless.

    Raises:
        OSError: the log cannot be opened, or FILE.1 not be written.
    """
    if not _is_over(log_file, max_bytes):
        return False
    with log_file.open("r+b") as source:
        try:
            _copy_end(source, log_file.with_name(f"{log_file.name}.1"), max_bytes)
        finally:
            source.truncate(0)
    return True


def _is_over(log_file: Path, max_bytes: int) -> bool:
    """Whether it is a file, not a terminal or /dev/null, and too large."""
    try:
        facts = log_file.stat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(facts.st_mode) and facts.st_size > max_bytes


def _copy_end(source: BinaryIO, target: Path, max_bytes: int) -> None:
    """Copy the last `max_bytes`, from the beginning of a line, and what is appended meanwhile."""
    target.unlink(missing_ok=True)  # first: its place on the disk may be needed, and a link must not be followed
    size = os.fstat(source.fileno()).st_size
    if size > max_bytes:
        source.seek(size - max_bytes - 1)
        source.readline(PIECE)  # the rest of a line whose beginning is left out, be it its end alone
    left = 2 * max_bytes  # a writer that is faster than this loop must not keep it going
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
        while left > 0 and (piece := source.read(min(PIECE, left))):
            copy.write(piece)
            left -= len(piece)
