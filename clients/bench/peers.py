"""The servers that the bench compares, as processes on loopback with the same model and the same engine arguments.

`ours` is `python -m server`, `vllm` is `python -m vllm.entrypoints.openai.api_server`, and `rust` is vLLM's own front
end in Rust before the same engine, where its program is there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import httpx
import psutil

MODEL_NAME = "bench"
END_WITHIN_S = 20
OURS, VLLM, RUST = "ours", "vLLM", "Rust"
CPU_ENGINE = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "2", "TORCH_COMPILE_DISABLE": "1"}
"""What vLLM's CPU build needs to know what it is, 2 GiB of KV cache, and no C++ compiler at the first request."""

VLLM_COMMAND = (
    "import importlib.metadata as packages;"
    "version = packages.version;"
    "packages.version = lambda name: version('vllm-cpu' if name == 'vllm' else name);"
    "from vllm.entrypoints.cli.main import main;"
    "main()"
)
"""The command `vllm`, which alone knows the front end in Rust, and which the CPU build installs under a name that it
does not recognise."""


@dataclass(frozen=True, slots=True)
class EngineArguments:
    """What every server is started with."""

    model: Path
    max_model_len: int = 4096
    max_num_seqs: int = 64
    images: int = 16


@dataclass(frozen=True, slots=True)
class Peer:
    """How one kind of server is started; `{port}` and `{folder}`, one for its files, are replaced in its command."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready_path: str
    folder: Path | None = None
    """Where it is started; the current folder where that is None."""

    def with_flags(self, *flags: str) -> Peer:
        """The same server with further flags."""
        return replace(self, command=(*self.command, *flags))


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready. `seconds` is from its start to its first ready answer."""

    address: str
    process: subprocess.Popen[bytes]
    seconds: float
    log: Path


LOOK_INSIDE = "--debuggable"
"""Who is not root could not read the memory of our server otherwise."""


def ours(engine: EngineArguments, checkout: Path | None = None) -> Peer:
    """This project's server, or the one of another checkout of the project."""
    flags = ("--model", str(engine.model.resolve()), "--device", "cpu", "--max-pictures", str(engine.images))
    look_inside = (LOOK_INSIDE,) if has_flag(LOOK_INSIDE, checkout) else ()
    command = (sys.executable, "-m", "server", "--port", "{port}", "--log-file", "{folder}/engine.log", *flags)
    return Peer(OURS, (*command, *look_inside, "--kv-cache-gib", "2", *_shared(engine)), {}, "/health/ready", checkout)


def vllm(engine: EngineArguments, *, cache: bool = False) -> Peer:
    """vLLM's own server, with or without its cache of prepared pictures."""
    command = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(engine.model.resolve()))
    no_cache = () if cache else ("--mm-processor-cache-gb", "0")
    return Peer(VLLM, (*command, *_vllm_flags(engine), *no_cache), CPU_ENGINE, "/health")


def rust(engine: EngineArguments, program: Path) -> Peer:
    """vLLM's server with `program`, its front end in Rust, in place of the one in Python; it has no cache to size."""
    command = (sys.executable, "-c", VLLM_COMMAND, "serve", str(engine.model.resolve()), *_vllm_flags(engine))
    environment = {"VLLM_USE_RUST_FRONTEND": "1", "VLLM_RUST_FRONTEND_PATH": str(program.resolve())}
    return Peer(RUST, command, {**CPU_ENGINE, **environment}, "/health")


def _vllm_flags(engine: EngineArguments) -> tuple[str, ...]:
    """What our server chooses by itself on a CPU, in vLLM's words."""
    listen = ("--host", "127.0.0.1", "--port", "{port}", "--enforce-eager", "--skip-mm-profiling")
    return (*listen, "--limit-mm-per-prompt", f'{{"image": {engine.images}, "video": 0}}', *_shared(engine))


def _shared(engine: EngineArguments) -> tuple[str, ...]:
    lengths = ("--max-model-len", str(engine.max_model_len), "--max-num-seqs", str(engine.max_num_seqs))
    return ("--served-model-name", MODEL_NAME, *lengths)


@cache
def has_flag(flag: str, checkout: Path | None = None) -> bool:
    """Whether our server knows a flag."""
    command = (sys.executable, "-m", "server", "--help")
    told = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True, timeout=60).stdout
    return flag in told


@contextlib.contextmanager
def running(peer: Peer, deadline_s: float) -> Iterator[Running]:
    """Start a server, wait until it is ready, and end it with all its processes.

    Raises:
        RuntimeError: it ended or was not ready in time; says where its output is, which is kept then.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"bench-{peer.name}-"))
    port, log = free_port(), folder / "output.log"
    command = [word.replace("{port}", str(port)).replace("{folder}", str(folder)) for word in peer.command]
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=peer.folder,
            env=_environment(peer),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _await_ready(process, address + peer.ready_path, started + deadline_s, log)
        yield Running(address, process, time.perf_counter() - started, log)
    finally:
        _end(process)
    shutil.rmtree(folder, ignore_errors=True)


def _environment(peer: Peer) -> dict[str, str]:
    """This process' environment without settings of either server, so that flags alone decide."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIN_", "VLLM_"))}
    return {**inherited, **peer.environment}


def _await_ready(process: subprocess.Popen[bytes], url: str, deadline: float, log: Path) -> None:
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}; its output is in {log}")
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=2).status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"the server was not ready in time; its output is in {log}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt, wait, then kill what is left."""
    family = [process.pid]
    with contextlib.suppress(psutil.NoSuchProcess):
        family += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    try:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_WITHIN_S)
    finally:  # also where somebody does not want to wait
        for pid in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
        process.wait()


def end_servers_on_sigterm() -> None:
    """Take SIGTERM as Ctrl-C is taken, so that a bench that is told to end leaves no server behind."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def question(picture_url: str, text: str) -> Sequence[dict[str, object]]:
    """Messages that ask about one picture."""
    image = {"type": "image_url", "image_url": {"url": picture_url}}
    return [{"role": "user", "content": [image, {"type": "text", "text": text}]}]
