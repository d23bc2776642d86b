"""Starts `python -m server` as a process of its own, and holds it to its word about how it ends.

    with serve("--model", "demo") as server:
        httpx.get(f"{server.address}/health")

Deadlines are those of a quiet machine, and count as many times as this one is slow. Nothing here imports the server, so
benches may use it as well as tests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psutil

from clients.bench.peers import free_port
from tests.waiting import slowness

START_DEADLINE_S: Final = 150.0
"""From the start of the process to ready. 25 to 45 s are usual on two cores; a busy machine takes longer."""
END_DEADLINE_S: Final = 5.0
"""What a person is promised after Ctrl-C."""
GONE_DEADLINE_S: Final = 1.0
"""How long init may take to collect what the server has ended."""
LAST_WORDS: Final = 6000
"""Characters of output that a failure shows."""


class ServingError(AssertionError):
    """The server did not do what a process of it must do; carries its output."""


@dataclass
class Server:
    """A server process and where it is found."""

    address: str
    model: str
    process: subprocess.Popen[bytes]
    log: Path
    """What the process printed. The engine's own words are in `engine.log` beside it."""

    def output(self) -> str:
        """Everything printed so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def reason(self) -> str | None:
        """Why the server is not ready; "unreachable" before its port answers, None once it is ready."""
        try:
            reply = httpx.get(f"{self.address}/health/ready", timeout=2)
        except httpx.TransportError:
            return "unreachable"
        return None if reply.status_code == 200 else str(reply.json()["reason"])

    def await_ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        """Return once requests are taken; raise ServingError when the process ends or takes too long."""
        self.await_that(lambda: self.reason() is None, "ready", deadline_s)

    def await_that(self, holds: Callable[[], bool], what: str, deadline_s: float, every_s: float = 0.1) -> None:
        """Return once `holds`; raise ServingError when the process ends or `deadline_s` passes."""
        end = time.monotonic() + deadline_s * slowness()
        while not holds():
            if self.process.poll() is not None:
                raise self.error(f"ended with status {self.process.returncode} before it was {what}")
            if time.monotonic() > end:
                raise self.error(f"was not {what} within {deadline_s:g} s")
            time.sleep(every_s)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = httpx.get(f"{self.address}/metrics", timeout=10).text.splitlines()
        values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]
        if not values:
            raise self.error(f"has no metric {name}")
        return sum(values)

    def family(self) -> list[psutil.Process]:
        """The server's process and all that it started, also those whose parent has gone."""
        found = {process.pid: process for process in self.children()}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
                if os.getsid(process.pid) == self.process.pid:
                    found[process.pid] = process
        return list(found.values())

    def children(self) -> list[psutil.Process]:
        """All that the server's process started and that still descends from it."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def named(self, part: str) -> list[psutil.Process]:
        """Those of the server's processes whose command line holds `part`."""
        return [process for process in self.family() if part in " ".join(_command(process))]

    def end(self, sign: signal.Signals, deadline_s: float = END_DEADLINE_S) -> int:
        """Send a signal; the exit status. Raises ServingError when that takes too long or a process is left behind."""
        family = self.family()
        self.process.send_signal(sign)
        try:
            status = self.process.wait(deadline_s * slowness())
        except subprocess.TimeoutExpired:
            raise self.error(f"had not ended {deadline_s:g} s after {sign.name}") from None
        self.require_gone(family)
        return status

    def require_gone(self, family: Sequence[psutil.Process], deadline_s: float = GONE_DEADLINE_S) -> None:
        """Raise ServingError unless all of these processes end in time."""
        end = time.monotonic() + deadline_s * slowness()
        while left := [process for process in {*family, *self.family()} if runs(process)]:
            if time.monotonic() > end:
                names = [f"{process.pid} {' '.join(_command(process))[:80]}" for process in left]
                raise self.error(f"left processes behind: {names}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End everything at once; for cleaning up."""
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()

    def error(self, what: str) -> ServingError:
        """An error that shows the last of what the server said."""
        engine_log = self.log.with_name("engine.log")
        engine = engine_log.read_text(encoding="utf-8", errors="replace") if engine_log.exists() else ""
        words = (f"the server {what}", "---- its output", self.output()[-LAST_WORDS:])
        return ServingError("\n".join((*words, "---- its engine", engine[-LAST_WORDS:])))


@contextlib.contextmanager
def launch(*flags: str, model: str = "ain-demo", cwd: Path | None = None) -> Iterator[Server]:
    """A server process from its first moment, ready or not; at the end of the block everything of it is killed.

    `cwd` is the folder whose `server` package runs, by default the current one.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ain-serving-") as folder:
        log = Path(folder) / "output.log"
        command = [sys.executable, "-m", "server", "--port", str(port), "--served-model-name", model]
        # Whoever runs the tests counts the server's descriptors, and need not be root.
        command += ["--log-file", str(log.with_name("engine.log")), "--debuggable", *flags]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=cwd,
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


@contextlib.contextmanager
def serve(*flags: str, model: str = "ain-demo", cwd: Path | None = None) -> Iterator[Server]:
    """A server that is ready. After the block it is told to stop and must do so in time, with status 0, alone."""
    with launch(*flags, model=model, cwd=cwd) as server:
        server.await_ready()
        yield server
        status = server.end(signal.SIGINT)
        if status != 0:
            raise server.error(f"ended with status {status} after SIGINT")


def environment() -> dict[str, str]:
    """This process' environment without settings of a server, so that flags alone decide."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AIN_")}


def _command(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.cmdline() or [process.name()]
    return []


def runs(process: psutil.Process) -> bool:
    """Whether it still does anything; one that only waits for its parent to collect it does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
