"""The servers that benches compare: ours and vLLM's own, as processes on loopback with the same engine arguments."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

MODEL_NAME = "bench"
END_WITHIN_S = 20


@dataclass(frozen=True, slots=True)
class Peer:
    """How one kind of server is started; `{port}` in a word of the command is replaced."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready_path: str


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready. `seconds` is from its start to its first ready answer."""

    address: str
    process: subprocess.Popen[bytes]
    seconds: float
    log: Path


def peers(model: Path, max_model_len: int, max_num_seqs: int, images: int) -> tuple[Peer, Peer]:
    """(ours, vLLM's) for the same model and the same engine arguments, on the CPU engine."""
    shared = {"max-model-len": max_model_len, "max-num-seqs": max_num_seqs}
    flags = [word for name, value in shared.items() for word in (f"--{name}", str(value))]
    ours = (
        *(sys.executable, "-m", "server", "--port", "{port}", "--model", str(model), "--device", "cpu"),
        *("--served-model-name", MODEL_NAME, "--max-pictures", str(images), "--kv-cache-gib", "2", *flags),
    )
    theirs = (
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", "{port}"),
        *("--model", str(model), "--served-model-name", MODEL_NAME, "--enforce-eager", "--skip-mm-profiling"),
        *("--limit-mm-per-prompt", f'{{"image": {images}, "video": 0}}', "--mm-processor-cache-gb", "0", *flags),
    )
    cpu = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "2", "TORCH_COMPILE_DISABLE": "1"}
    return Peer("ours", ours, {}, "/health/ready"), Peer("vLLM", theirs, cpu, "/health")


@contextlib.contextmanager
def running(peer: Peer, deadline_s: float) -> Iterator[Running]:
    """Start a server, wait until it is ready, and end it with all its processes.

    Raises:
        RuntimeError: it ended or was not ready in time; says where its output is.
    """
    port = free_port()
    command = [word.replace("{port}", str(port)) for word in peer.command]
    started = time.perf_counter()
    with tempfile.NamedTemporaryFile(prefix=f"bench-{peer.name}-", suffix=".log", delete=False) as output:
        log = Path(output.name)
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **peer.environment}
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _await_ready(process, address + peer.ready_path, started + deadline_s, log)
        yield Running(address, process, time.perf_counter() - started, log)
    finally:
        _end(process)


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
    process.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(END_WITHIN_S)
    for pid in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    process.wait()


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def question(picture_url: str, text: str) -> Sequence[dict[str, object]]:
    """Messages that ask about one picture."""
    image = {"type": "image_url", "image_url": {"url": picture_url}}
    return [{"role": "user", "content": [image, {"type": "text", "text": text}]}]
