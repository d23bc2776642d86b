"""Plays a decode worker that a file has taken over: shuts itself in, then tries everything. Prints what it could do.

python -m tests.unit.media.taken_over SECRET_FILE PORT FOLDER
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from server.media.workers.box import shut_in

MEMORY: Final = 64 << 20
libc = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: object) -> None:
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "failed")


def attempts(secret: str, port: int, folder: str, there: socket.socket) -> dict[str, Callable[[], object]]:
    parent = os.getppid()
    return {
        "read the server's environment": lambda: Path(f"/proc/{parent}/environ").read_bytes(),
        "read the server's memory": lambda: os.open(f"/proc/{parent}/mem", os.O_RDONLY),
        "read the server's memory at once": lambda: call(310, parent, None, 0, None, 0, 0),
        "read a secret": lambda: Path(secret).read_bytes(),
        "read the passwords": lambda: Path("/etc/passwd").read_bytes(),
        "list the files": lambda: [name for name in os.listdir("/") if name != "usr"] or 1 / 0,
        "write a file": lambda: Path(folder, "new").write_bytes(b"x"),
        "write a file in the root": lambda: Path("/new").write_bytes(b"x"),
        "remove a file": lambda: os.unlink(secret),
        "open a socket": lambda: socket.socket(),
        "connect": lambda: socket.create_connection(("127.0.0.1", port), 5),
        "use a socket that is there": lambda: there.connect(("127.0.0.1", port)),
        "run a program": lambda: os.execv("/bin/true", ["true"]),  # noqa: S606
        "run a shell": lambda: subprocess.run(["true"], check=True),
        "fork": lambda: os.fork() or os._exit(0),
        "end the server": lambda: os.kill(parent, signal.SIGTERM),
        "trace the server": lambda: call(101, 16, parent, None, None),
        "leave its root": lambda: os.chroot("."),
        "mount": lambda: call(165, b"proc", b"/", b"proc", 0, None),
        "be somebody else": lambda: os.setresuid(1, 1, 1),
        "have more descriptors": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),
        "use io_uring": lambda: call(425, 8, bytes(120)),
        "know the environment": lambda: os.environ["AIN_API_KEYS"],
        "write more into memory than it may have": lambda: os.ftruncate(os.memfd_create("x"), MEMORY + 1),
    }


def needs() -> dict[str, Callable[[], object]]:
    """What decoding needs, and must still work."""

    def in_a_thread() -> None:
        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(1))
        thread.start()
        thread.join()
        assert done

    def memory_file() -> None:
        descriptor = os.memfd_create("x", os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, 1 << 20)
        mmap.mmap(descriptor, 1 << 20).close()
        os.close(descriptor)

    def limit_cpu() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (1000, resource.RLIM_INFINITY))

    return {"threads": in_a_thread, "memory files": memory_file, "limits": limit_cpu}


def possible(tries: dict[str, Callable[[], object]]) -> list[str]:
    found = []
    for name, attempt in tries.items():
        try:
            attempt()
        except (OSError, LookupError, ValueError, ZeroDivisionError, subprocess.SubprocessError):
            continue
        found.append(name)
    return found


def main(secret: str, port: str, folder: str) -> None:
    there = socket.socket()
    missing = shut_in(MEMORY)
    print(
        json.dumps(
            {
                "missing": missing,
                "can": possible(attempts(secret, int(port), folder, there)),
                "needs": possible(needs()),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
