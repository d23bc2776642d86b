"""Several server processes side by side, each with a port that it keeps over its restarts."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx

from clients.bench.peers import free_port
from tests.serving import Server

MODEL: Final = "ain-demo"
FLAGS: Final = ("--model", "demo", "--engine", "scripted", "--decode-workers", "1", "--served-model-name", MODEL)
OPEN: Final = "--allow-unauthenticated"
"""Without keys and without this a server answers to its machine's own name alone, which not every probe writes."""
DRAINED_WITHIN_S: Final = 45.0


class Replica:
    """One of them. `start` again after it has ended, however it ended."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self._folder = folder
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        """The process that runs now."""
        if self._server is None:
            raise RuntimeError("the replica has not been started")
        return self._server

    def start(self) -> None:
        """Start the process, and return before it is ready."""
        log = self._folder / "output.log"
        flags = ("--port", str(self.port), "--log-file", str(self._folder / "engine.log"), *FLAGS, OPEN)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIN_")}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "server", *flags],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._server = Server(f"http://127.0.0.1:{self.port}", MODEL, process, log)

    def stop(self) -> int:
        """Have it drain, as an orchestrator does; the exit status."""
        return self.server.end(signal.SIGTERM, DRAINED_WITHIN_S)

    def kill(self) -> None:
        """End all of its processes in the same moment, as a machine that loses its power."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.server.process.pid, signal.SIGKILL)
        self.server.kill()

    def counted(self, sample: str) -> float:
        """The value of a sample of /metrics, with its labels as they stand there; 0 where it is not there yet."""
        lines = httpx.get(f"{self.server.address}/metrics", timeout=10, trust_env=False).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{sample} "))


@contextlib.contextmanager
def open_replicas(count: int) -> Iterator[list[Replica]]:
    """So many of them, all ready."""
    with contextlib.ExitStack() as stack:
        replicas: list[Replica] = []
        ports: set[int] = set()
        while len(ports) < count:
            ports.add(free_port())
        for port in ports:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ain-replica-")))
            replicas.append(replica := Replica(port, folder))
            replica.start()
            stack.callback(replica.kill)
        for replica in replicas:
            replica.server.await_ready()
        yield replicas
