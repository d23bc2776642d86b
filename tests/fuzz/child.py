"""The process in which decoders meet damaged files: it may crash, hang or be refused memory, and is started again.

Reads from its standard input the kind (a line), the length (a line) and the bytes of a file; answers with a line of
JSON. A file that it does not survive has no answer.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Literal

from tests.fuzz.seeds import Kind

MEMORY_BYTES: Final = 2 << 30
"""Of address space, on top of what the libraries take when they are loaded."""
START_S: Final = 120.0
HANG_S: Final = 10.0

Fate = Literal["decoded", "refused", "limited", "fault"]


@dataclass(frozen=True)
class Verdict:
    """What became of a file. `limited`: PDFium went on until time or memory were out, as it may in a decode worker."""

    fate: Fate
    detail: str
    seconds: float


class Child:
    """A context manager that starts the process, and ends it; another is started where one has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lasts as long as the child

    def __enter__(self) -> Child:
        self.process()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._log.close()

    def judge(self, kind: Kind, data: bytes) -> Verdict:
        """Have a file decoded."""
        process = self.process()
        started = time.monotonic()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended before it had read all; its status says how
            process.stdin.write(b"%b\n%d\n%b" % (kind.encode(), len(data), data))
            process.stdin.flush()
        answer = _line(process, HANG_S)
        seconds = time.monotonic() - started
        if answer is None:
            self._end()
            return Verdict("limited" if kind == "document" else "fault", f"hangs for {HANG_S:g} s", seconds)
        if not answer:
            return Verdict(*self._death(kind, process.wait(HANG_S)), seconds)
        said = json.loads(answer)
        if "fault" in said:
            return Verdict("fault", said["fault"], seconds)
        decoded = said["outcome"] == "decoded"
        return Verdict("decoded" if decoded else "refused", said["outcome"], seconds)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            with contextlib.suppress(BrokenPipeError), self._process:
                self._process = None

    def _death(self, kind: Kind, status: int) -> tuple[Fate, str]:
        self._end()
        self._log.seek(0)
        last = self._log.read()[-2000:].decode(errors="replace")
        if kind == "document" and status == -signal.SIGABRT:
            return "limited", "memory is out"  # PDFium cannot go on without
        name = signal.Signals(-status).name if status < 0 else f"status {status}"
        return "fault", f"ends the process with {name}\n{last}"

    def process(self) -> subprocess.Popen[bytes]:
        """The one that decodes what comes next."""
        return self._process or self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self._log.seek(0)
        self._log.truncate()
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "tests.fuzz.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        if _line(self._process, START_S) != b"ready\n":
            raise RuntimeError("the process that decodes cannot start")
        return self._process


def _line(process: subprocess.Popen[bytes], timeout: float) -> bytes | None:
    """Its next line; empty when it has ended, None when the time is up."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        return process.stdout.readline() if selector.select(timeout) else None


def main() -> None:
    """Decode what comes until nothing more comes."""
    from tests.fuzz.decoders import outcome

    most = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    source = sys.stdin.buffer
    print("ready", flush=True)
    while kind := source.readline():
        data = source.read(int(source.readline()))
        try:
            said = {"outcome": outcome(kind.decode().strip(), data)}  # type: ignore[arg-type]
        except Exception:
            said = {"fault": traceback.format_exc()}
        print(json.dumps(said), flush=True)


if __name__ == "__main__":
    main()
