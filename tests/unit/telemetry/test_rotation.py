from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from server.telemetry import metrics, rotation
from server.telemetry.rotation import keep_bounded, rotate


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


def before(log_file: Path) -> Path:
    return log_file.with_name("engine.log.1")


def lines(count: int, start: int = 0) -> bytes:
    """Lines of ten bytes."""
    return b"".join(b"%09d\n" % number for number in range(start, start + count))


# ---- One look


def test_a_small_log_is_left_alone(log_file: Path) -> None:
    log_file.write_bytes(lines(10))
    assert not rotate(log_file, 100)
    assert log_file.read_bytes() == lines(10)
    assert not before(log_file).exists()


def test_no_log_is_none_of_its_business(log_file: Path) -> None:
    assert not rotate(log_file, 100)
    assert not rotate(Path("/dev/null"), 0)
    assert not rotate(log_file.parent, 0)


def test_a_large_log_becomes_the_one_before(log_file: Path) -> None:
    log_file.write_bytes(lines(11))
    assert rotate(log_file, 109)
    assert log_file.read_bytes() == b""
    assert before(log_file).read_bytes() == lines(10, start=1), "from the beginning of a line"
    assert before(log_file).stat().st_mode & 0o777 == 0o600

    log_file.write_bytes(lines(2000, start=50))
    assert rotate(log_file, 109)
    assert before(log_file).read_bytes() == lines(10, start=2040), "its end, in the place of what was there"


def test_one_endless_line_is_bounded_too(log_file: Path) -> None:
    log_file.write_bytes(b"x" * (3 << 20))
    assert rotate(log_file, 2 << 20)
    assert log_file.stat().st_size == 0
    assert before(log_file).stat().st_size <= 2 << 20


def test_a_link_in_the_place_of_the_one_before_is_not_followed(log_file: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    before(log_file).symlink_to(precious)
    log_file.write_bytes(lines(11))
    assert rotate(log_file, 100)
    assert precious.read_text() == "precious"
    assert not before(log_file).is_symlink()


def test_a_full_disk_is_given_its_room_back(log_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rotation, "_copy_end", full)
    log_file.write_bytes(lines(11))
    with pytest.raises(OSError, match="No space"):
        rotate(log_file, 100)
    assert log_file.stat().st_size == 0


# ---- Under the hands of those who write

WRITER = """
import logging, os, sys, time
name, path = sys.argv[1:]
log = logging.getLogger(name)
log.addHandler(logging.FileHandler(path))  # as vLLM's processes have it
os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), 1)  # as C++ code writes
end, number = time.monotonic() + 1.5, 0
while time.monotonic() < end:
    log.error("%s logs %06d", name, number)
    os.write(1, b"%s writes %06d\\n" % (name.encode(), number))
    number += 1
    time.sleep(0.0002)
"""


def test_several_processes_write_on_while_the_log_is_cut(log_file: Path) -> None:
    log_file.touch()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name, str(log_file)]) for name in ("first", "second")]
    cuts = largest = 0
    try:
        while any(writer.poll() is None for writer in writers):
            largest = max(largest, log_file.stat().st_size)
            cuts += rotate(log_file, 16_000)
            time.sleep(0.01)
    finally:
        for writer in writers:
            writer.kill()
    assert [writer.wait() for writer in writers] == [0, 0]
    assert cuts > 1
    assert largest < 80_000, "bounded by what is written between two looks"
    for file in (log_file, before(log_file)):
        content = file.read_bytes()
        assert b"\0" not in content, "no hole where the file had been longer"
        for line in content.splitlines():
            assert line.split()[1] in {b"logs", b"writes"}, "every line is whole"


async def kept_until(log_file: Path, done: Callable[[], bool]) -> None:
    """Keep a log within 1,000 bytes until something is so."""
    task = asyncio.create_task(keep_bounded(log_file, 1000, every_s=0.001))
    async with asyncio.timeout(60):
        while not done():  # noqa: ASYNC110  there is nothing but the disk to tell
            await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_both_files_are_kept_within_bounds_together(log_file: Path) -> None:
    log_file.write_bytes(lines(200))  # noqa: ASYNC240
    await kept_until(log_file, before(log_file).exists)
    assert log_file.stat().st_size == 0  # noqa: ASYNC240
    assert before(log_file).read_bytes() == lines(50, start=150)


async def test_what_cannot_be_done_is_told_once(
    log_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = []

    def fail(*_: object) -> bool:
        looks.append(1)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(rotation, "rotate", fail)
    with caplog.at_level(logging.WARNING, "server"):
        await kept_until(log_file, lambda: len(looks) > 5)
    assert len(caplog.records) == 1
    assert "Permission denied" in caplog.text


async def test_its_size_and_the_room_on_its_disk_are_measured(log_file: Path) -> None:
    log_file.write_bytes(lines(30))  # noqa: ASYNC240
    await kept_until(log_file, lambda: metrics.LOG_BYTES._value.get() == 300)
    assert metrics.LOG_DISK_FREE_BYTES._value.get() > 0


async def test_a_log_that_was_taken_away_is_no_trouble(log_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    task = asyncio.create_task(keep_bounded(log_file, 1000, every_s=0.001))
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()
    assert not caplog.records
