"""The server that faults are done to: with the real engine, limits wide enough for a crowd, and a disk for its logs."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clients.bench.peers import free_port
from tests.drills.asking import Crowd, Probe
from tests.drills.drill import Plan
from tests.drills.shared import Shared
from tests.serving import Server, environment

MODEL: Final = "ain-" + "x" * 396
"""Each chunk of a stream has the name in it: whoever does not read has full buffers after fewer tokens."""
STALLED_S: Final = 5.0
DRAIN_S: Final = 8.0
RESTARTS: Final = 1000
POISON_SEED: Final = 666_013
"""The `seed` of a request that kills the engine, see `poison.py`."""
FLAGS: Final = (
    *("--model", "demo"),
    *("--max-requests", "1500", "--max-running", "700", "--max-num-seqs", "256"),
    *("--engine-restarts", str(RESTARTS), "--stalled-timeout-s", str(STALLED_S), "--drain-timeout-s", str(DRAIN_S)),
    *("--fetch-allowed-hosts", "127.0.0.1", "--fetch-timeout-s", "60"),
    *("--media-cache-mib", "0"),  # what is kept of pictures would pass for a leak
    *("--engine-arg", 'logits_processors=["tests.drills.poison:KillsEngine"]'),
)
DISK_MIB: Final = 16


@dataclass(frozen=True, slots=True)
class House:
    """A server that is ready, and who visits it."""

    server: Server
    crowd: Crowd
    probe: Probe
    disk: Disk
    cold_start_s: float
    """From the start of the process to ready."""

    def descriptors(self) -> int:
        """How many files and sockets the server's process has open."""
        return len(os.listdir(f"/proc/{self.server.process.pid}/fd"))


@contextlib.contextmanager
def open_house(plan: Plan, *flags: str, model: str = MODEL) -> Iterator[House]:
    """A server of the drill's own; in the short form, and without flags of its own, the one that drills share."""
    if plan.short and not flags:
        yield shared_house()
        return
    with _started(*flags, model=model) as house:
        yield house


@contextlib.contextmanager
def _started(*flags: str, model: str) -> Iterator[House]:
    """A server that must end with status 0 and alone, unless its drill has ended it already."""
    with small_disk() as disk, _launched(disk.folder, *flags, model=model) as server:
        began = time.monotonic()
        server.await_ready()
        cold_start_s = time.monotonic() - began
        with Crowd(server) as crowd, Probe(server) as probe:
            yield House(server, crowd, probe, disk, cold_start_s)
        if server.process.poll() is None and (status := server.end(signal.SIGINT)) != 0:
            raise server.error(f"ended with status {status} after SIGINT")


def shared_house() -> House:
    """The one that all short drills share, with nothing under way."""
    house = _shared_house.get()
    house.probe.await_idle()
    return house


_shared_house = Shared(lambda: _started(model=MODEL), lambda house: house.server.process.poll() is None)


@contextlib.contextmanager
def _launched(folder: Path, *flags: str, model: str) -> Iterator[Server]:
    port, log = free_port(), folder / "output.log"
    command = [sys.executable, "-m", "server", "--port", str(port), "--served-model-name", model]
    command += ["--log-file", str(folder / "engine.log"), "--debuggable", *FLAGS, *flags]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(f"http://127.0.0.1:{port}", model, process, log)
    try:
        yield server
    finally:
        server.kill()


# ---- The disk that its logs are on


class Disk:
    """A folder; where this user may mount, on a disk of its own that can be filled up."""

    def __init__(self, folder: Path, *, is_small: bool) -> None:
        self.folder = folder
        self.is_small = is_small
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no byte free. Never of a disk that others write to."""
        if not self.is_small:
            return
        with self._ballast.open("ab", buffering=0) as ballast:
            for size in (1 << 16, 1):
                with contextlib.suppress(_NoSpaceLeft):
                    while True:
                        _write(ballast.fileno(), size)

    def is_full(self) -> bool:
        """Whether no byte is free."""
        return self.is_small and shutil.disk_usage(self.folder).free == 0

    def free_up(self) -> None:
        """Give back what `fill` took."""
        self._ballast.unlink(missing_ok=True)


class _NoSpaceLeft(Exception):
    """The disk is full."""


def _write(descriptor: int, size: int) -> None:
    try:
        os.write(descriptor, bytes(size))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _NoSpaceLeft from error


@contextlib.contextmanager
def small_disk() -> Iterator[Disk]:
    """A disk of some megabytes in memory, or a mere folder where this user may not mount."""
    with tempfile.TemporaryDirectory(prefix="ain-drill-") as name:
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", name]
        is_small = subprocess.run(command, capture_output=True, check=False).returncode == 0
        try:
            yield Disk(Path(name), is_small=is_small)
        finally:
            if is_small:
                subprocess.run(["umount", "--lazy", name], check=True)
