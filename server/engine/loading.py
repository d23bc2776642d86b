"""How far vLLM is with loading, read from its log: it tells nobody else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

LOOK_EVERY_S = 0.5
MOST_AT_ONCE = 1 << 20
"""Bytes: some devices, such as /dev/full, can be read without an end."""

STAGES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"Loading safetensors checkpoint shards:.*\| (\d+/\d+)"), "weights, file {}"),
    (re.compile(r"Loading weights took ([\d.]+) s"), "weights read in {} s"),
    (re.compile(r"torch\.compile took ([\d.]+) s"), "compiled in {} s"),
    (re.compile(r"Capturing CUDA graphs.*\| (\d+/\d+)"), "CUDA graphs, {}"),
    (re.compile(r"Graph capturing finished in (\d+) s"), "CUDA graphs captured in {} s"),
    (re.compile(r"KV cache size: ([\d,]+) tokens"), "KV cache of {} tokens"),
)
"""Lines of vLLM 0.32's log, and what to tell a person. A line that changes its wording is merely not shown."""


async def follow(log_file: Path, tell: Callable[[str], None]) -> None:
    """Tell each stage that appears in the log from now on, until cancelled."""
    position = _size(log_file)
    while True:
        await asyncio.sleep(LOOK_EVERY_S)
        text, position = _read_from(log_file, position)
        stage = latest_stage(text)
        if stage is not None:
            tell(stage)


def latest_stage(text: str) -> str | None:
    """The stage that the last telling line of `text` speaks of."""
    # A progress bar redraws its line with a carriage return.
    for line in reversed(re.split(r"[\r\n]+", text)):
        for pattern, words in STAGES:
            found = pattern.search(line)
            if found:
                return words.format(found.group(1))
    return None


def _size(log_file: Path) -> int:
    try:
        return log_file.stat().st_size
    except OSError:
        return 0


def _read_from(log_file: Path, position: int) -> tuple[str, int]:
    try:
        with log_file.open("rb") as log:
            if _size(log_file) < position:  # it was cut, for its size
                position = 0
            log.seek(position)
            data = log.read(MOST_AT_ONCE)
    except OSError:
        return "", position
    return data.decode("utf-8", "replace"), position + len(data)
