"""The engine's processes: none is left behind, and none writes where a person reads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil

from tests.waiting import eventually

FAMILY = """
import subprocess, sys, time
from server.engine.processes import end_all

stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
parent = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {stubborn!r}])"
children = [
    subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for code in (parent, stubborn, "print('up', flush=True); import time; time.sleep(60)")
]
for child in children:
    child.stdout.readline()
import psutil
print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
began = time.monotonic()
end_all(0.3)
print(time.monotonic() - began)
print(len(psutil.Process().children(recursive=True)))
for child in children:
    child.wait()
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: all that these functions touch belongs to a whole process."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=True
    )


def test_every_descendant_is_ended_the_stubborn_ones_too() -> None:
    pids, seconds, left = run(FAMILY).stdout.splitlines()
    assert len(pids.split()) == 4
    assert float(seconds) < 2
    assert left == "0"
    assert not [pid for pid in pids.split() if psutil.pid_exists(int(pid)) and not is_zombie(int(pid))]


def is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_with_nobody_to_end_nothing_is_waited_for() -> None:
    code = (
        "import time\n"
        "from server.engine.processes import end_all\n"
        "began = time.monotonic()\n"
        "end_all(5)\n"
        "print(time.monotonic() - began)\n"
    )
    assert float(run(code).stdout) < 1


OUTPUT = """
import os, subprocess, sys
from pathlib import Path
from server.engine.processes import redirect_output
terminal = redirect_output(Path(sys.argv[1]))
print("from Python", flush=True)
os.write(2, b"from C\\n")
subprocess.run(["echo", "from a child"])
print("for a person", file=terminal, flush=True)
"""


def test_what_libraries_write_goes_to_the_log_and_never_over_what_a_person_sees(tmp_path: Path) -> None:
    log = tmp_path / "folder" / "engine.log"
    done = run(OUTPUT, str(log))
    assert (done.stdout, done.stderr) == ("", "for a person\n")
    assert log.read_text().splitlines() == ["from Python", "from C", "from a child"]
    assert log.stat().st_mode & 0o777 == 0o600


PARENT = """
import multiprocessing, time
from server.engine import zygote

def child():
    print(multiprocessing.current_process().pid, flush=True)
    time.sleep(60)

zygote.end_with_parent()
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
time.sleep(60)
"""


def test_no_engine_process_outlives_a_server_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert eventually(lambda: not psutil.pid_exists(child) or is_zombie(child))
