"""The engine's processes: none is left behind, and none writes where a person reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from server.engine.processes import activity_of, kill_now, with_children
from server.engine.protocol import ProcessActivity
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
    assert float(run(code).stdout) < 4


OUTPUT = """
import os, subprocess, sys
from pathlib import Path
from server.engine.output import redirect_output
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
from server.engine import fork_server

def child():
    print(multiprocessing.current_process().pid, flush=True)
    time.sleep(60)

fork_server.end_with_parent()
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


SECRETS = """
import ctypes, multiprocessing, os
from server.engine.processes import keep_memory_private, start_fork_server

def tell():
    names = ("AIN_API_KEYS", "HF_TOKEN", "MY_SECRET", "TOKENIZERS_PARALLELISM", "PATH")
    print(*(name for name in names if name in os.environ), flush=True)

if __name__ == "__main__":
    keep_memory_private()
    start_fork_server([], {})
    process = multiprocessing.get_context("forkserver").Process(target=tell)
    process.start()
    process.join()
    tell()
    print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), flush=True)  # PR_GET_DUMPABLE
    input()
"""


def test_no_process_inherits_a_secret_and_nobody_may_look_into_the_server(tmp_path: Path) -> None:
    """But the server itself still knows them: it fetches models."""
    script = tmp_path / "script.py"
    script.write_text(SECRETS)
    known = {"AIN_API_KEYS": "a", "HF_TOKEN": "b", "MY_SECRET": "c", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **known, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline().split() == ["TOKENIZERS_PARALLELISM", "PATH"]
        assert server.stdout.readline().split() == [*known, "PATH"]
        assert server.stdout.readline() == "0\n"
        server.communicate("\n")


WAITING = """
import os, time
from server.engine import fork_server
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue

fork_server.wait_asleep()
writer = MessageQueue(1, 1)
handle = writer.export_handle()
if not os.fork():
    reader = MessageQueue.create_from_handle(handle, 0)
    reader.wait_until_ready()
    reader.dequeue()
    before = time.process_time()
    word = reader.dequeue()
    print(word, time.process_time() - before, flush=True)
    os._exit(0)
writer.wait_until_ready()
writer.enqueue("first")
time.sleep(0.9)
writer.enqueue("second")
os.wait()
"""


def test_engine_processes_that_wait_for_each_other_take_no_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM's own would spin on one for a second after each message."""
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", str(tmp_path.parent))  # short enough for sockets
    word, seconds = run(WAITING).stdout.split()
    assert word == "second"
    assert float(seconds) < 0.45


# ---- What processes do, and their end

IDLE = "import time; print('up', flush=True); time.sleep(60)"
BUSY = "print('up', flush=True)\nwhile True: pass"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT_OF = "import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
PARENT_THEN_IDLE = """
import subprocess, sys, time
subprocess.run([sys.executable, "-c", "import time\\nprint('up', flush=True)\\nwhile time.process_time() < 0.6: pass"])
print("over", flush=True)
time.sleep(60)
"""


@contextmanager
def running(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has said that it is up."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        kill_now([process.pid])
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def spent(*processes: subprocess.Popen[str]) -> float:
    return activity_of([process.pid for process in processes]).cpu_s


def test_a_pulse_tells_who_works_from_who_waits() -> None:
    with running(IDLE) as idle, running(BUSY) as busy:
        before = spent(idle), spent(busy)
        assert eventually(lambda: spent(busy) > before[1] + 0.2)
        assert spent(idle) - before[0] < 0.1
        alone = spent(busy)
        assert spent(idle, busy) >= alone
        assert not activity_of([idle.pid, busy.pid]).stopped


def test_the_work_of_descendants_counts() -> None:
    with running(PARENT_OF.format(code=BUSY)) as parent:
        before = spent(parent)
        assert eventually(lambda: spent(parent) > before + 0.2)


def test_work_is_not_taken_back_when_who_has_done_it_ends() -> None:
    """Else an engine seems to do nothing in the moment in which a compiler that it has called is done."""
    with running(PARENT_THEN_IDLE) as parent:
        highest = 0.0
        assert parent.stdout is not None
        while highest < 0.4:
            highest = max(highest, spent(parent))
        assert parent.stdout.readline() == "over\n"
        assert spent(parent) >= highest


def test_a_pulse_tells_of_a_process_that_has_been_stopped() -> None:
    with running(IDLE) as process:
        process.send_signal(signal.SIGSTOP)
        assert eventually(lambda: activity_of([process.pid]).stopped)
        process.send_signal(signal.SIGCONT)
        assert eventually(lambda: not activity_of([process.pid]).stopped)


def test_a_pulse_tells_of_a_process_that_has_ended() -> None:
    with running(IDLE) as process:
        process.kill()
        assert eventually(lambda: activity_of([process.pid]).stopped), "a zombie"
        process.wait()
        assert activity_of([process.pid]) == ProcessActivity(0.0, stopped=True)
    assert activity_of([]) == ProcessActivity(0.0, stopped=False)


@pytest.mark.parametrize("code", [IDLE, STUBBORN, PARENT_OF.format(code=STUBBORN)], ids=["idle", "stubborn", "family"])
@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
def test_whatever_a_process_does_it_can_be_killed_with_its_descendants(code: str, stopped: bool) -> None:
    with running(code) as process:
        family = with_children([process.pid])
        if stopped:
            for one in family:
                one.suspend()
        kill_now([process.pid])
        assert [one.pid for one in family if not is_zombie(one.pid)] == []


def test_killing_who_has_gone_does_no_harm() -> None:
    with running(IDLE) as process:
        kill_now([process.pid])
        process.wait()
        kill_now([process.pid])
        kill_now([])
