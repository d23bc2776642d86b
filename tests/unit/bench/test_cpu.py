"""What the front end costs: its processes and none of the engine's, those that have ended too."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from clients.bench.cpu import cpu_seconds, front_end, is_engine, memory_mib

SERVER = """
import subprocess, sys

worker = "import sys, time; sys.stdout.write('up'); sys.stdout.flush(); time.sleep(60)"
titles = ("VLLM::EngineCore", "VLLM::Worker", "decode worker")
# A process is known by its command line; the first word of one can be anything.
named = {title: [title, "-c", worker] for title in titles}
children = [
    subprocess.Popen(command, executable=sys.executable, stdout=subprocess.PIPE) for command in named.values()
]
for child in children:
    child.stdout.read(2)
print("up", flush=True)
for line in sys.stdin:
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.5: pass"])
    print("done", flush=True)
for child in children:
    child.kill()
"""


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    """A process that starts an engine and a decode worker, and for each line another worker for half a second."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    yield process
    process.communicate(timeout=30)


def commands(processes: list[psutil.Process]) -> list[str]:
    return [process.cmdline()[0].rpartition("/")[2] for process in processes]


def test_the_front_end_is_all_but_the_engine(server: subprocess.Popen[str]) -> None:
    assert commands(front_end(server.pid)) == [Path(sys.executable).name, "decode worker"]


def test_what_came_and_went_between_two_readings_is_counted(server: subprocess.Popen[str]) -> None:
    assert server.stdin is not None
    assert server.stdout is not None
    before = cpu_seconds(server.pid)
    server.stdin.write("work\n")
    server.stdout.readline()
    assert 0.45 <= cpu_seconds(server.pid) - before < 1.5  # read in steps of 10 ms a process


@pytest.mark.parametrize("read", [cpu_seconds, memory_mib])
def test_a_live_front_end_has_used_something(server: subprocess.Popen[str], read: Callable[[int], float]) -> None:
    assert read(server.pid) > 0


def test_a_server_that_is_gone_is_an_error_of_its_own_kind() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        with pytest.raises(psutil.NoSuchProcess):
            front_end(process.pid)


@pytest.mark.parametrize(
    ("command", "engine"),
    [
        ("VLLM::EngineCore", True),
        ("VLLM::EngineCore_DP0", True),
        ("VLLM::Worker_TP1", True),
        ("VLLM::APIServer_0", False),
        ("python -m vllm.entrypoints.openai.api_server --model /models/VLLM::Worker", False),
        ("/usr/bin/vllm-rs frontend", False),
    ],
)
def test_the_engine_is_known_by_its_title(command: str, engine: bool) -> None:
    assert is_engine(command) is engine
