"""Runs the server as a process: terminal, log, port, signals, exit status."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import NoReturn, TextIO

import uvicorn

from server.admission.keys import KeyRing, KeysError
from server.app import create_app, key_ring
from server.engine.arguments import engine_environment
from server.engine.device import Device, find_device
from server.engine.output import redirect_output
from server.engine.processes import ENGINE_FORK_SERVER, end_all, keep_memory_private, start_fork_server
from server.engine.setup import set_up_engine
from server.media.fetching.addresses import AllowList
from server.media.fetching.files import Folders
from server.media.workers.pool import DECODERS
from server.routes.http11 import bounded_http
from server.services import Services
from server.settings import Settings, SettingsError
from server.telemetry.console import LOG_LINES, Console
from server.telemetry.logs import configure_logs
from server.telemetry.rotation import keep_bounded

INTERRUPT_GRACE_S = 2
"""How long Ctrl-C lets requests run on: a person waits. SIGTERM gives them `drain_timeout_s`."""
SHOW_DRAINING_S = 2.0
"""How long a server without requests still says that it is draining, for balancers that look every second."""
AFTER_DRAIN_S = 1
"""What uvicorn gives requests that the drain did not see end."""
END_GRACE_S = 1.0
M_MMAP_THRESHOLD = -3
LARGE_BLOCK = 8 << 20
DESCRIPTORS = 65_536
TAIL_BYTES = 1 << 16
FAILED = 1


def serve(settings: Settings) -> int:
    """Serve until told to stop; returns the exit status."""
    _check(settings)
    keys = _keys(settings)
    device = find_device(settings.device)
    listener = _listen("--port", settings.host, settings.port)
    listeners = [listener, *_metrics_listener(settings)]
    port = int(listener.getsockname()[1])
    log_file = settings.log_path(port)
    terminal = redirect_output(log_file)
    console = Console(quiet=settings.quiet, stream=terminal)
    configure_logs(settings.log_level, terminal, settings.log_format)
    for warning in keys.warnings:
        console.note(warning)
    if not settings.debuggable:
        keep_memory_private()
    _allow_descriptors()
    _return_large_blocks()
    status = FAILED
    try:
        with tempfile.TemporaryDirectory(prefix="ain-", ignore_cleanup_errors=True) as scratch:
            if settings.engine == "vllm":
                environment = engine_environment(settings, device, log_file, Path(scratch))
                start_fork_server([ENGINE_FORK_SERVER, DECODERS], environment)
            else:
                start_fork_server([DECODERS], {})
            status = Process(settings, keys, console, device, log_file, listeners).run()
            end_all(END_GRACE_S)
    except Exception as error:
        console.fail(f"The server failed: {type(error).__name__}: {error}", "", _tail(log_file), str(log_file))
        end_all(END_GRACE_S)
    finally:
        console.close()
        if settings.engine == "vllm":
            _leave(status, terminal)
    return status


class Process(uvicorn.Server):
    """A uvicorn server that tells a person what happens, drains on signals, and ends when its engine does."""

    def __init__(
        self,
        settings: Settings,
        keys: KeyRing,
        console: Console,
        device: Device,
        log_file: Path,
        listeners: list[socket.socket],
    ) -> None:
        self._settings = settings
        self._console = console
        self._log_file = log_file
        self._listeners = listeners
        self._status = 0
        app = create_app(
            settings,
            set_up_engine=lambda folder, family: set_up_engine(settings, folder, family, device, log_file),
            keys=keys,
            console=console,
            events=self,
        )
        self._services: Services = app.state.services
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http=bounded_http(self._services, most_connections()),
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=settings.keep_alive_s,
                timeout_graceful_shutdown=int(settings.drain_timeout_s),
            )
        )

    def run(self, sockets: list[socket.socket] | None = None) -> int:  # type: ignore[override]
        """Serve on the listening sockets; returns the exit status."""
        super().run(sockets or self._listeners)
        for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn has put their defaults back; what is left is short
            signal.signal(number, signal.SIG_IGN)
        return self._status

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._settings.api_keys_file is not None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._services.key_watch.look_now)
        self._bounding = asyncio.create_task(keep_bounded(self._log_file, self._settings.log_max_mib << 20))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Keep the port open while requests finish, so that balancers read 503 there and no refused connection."""
        started = time.monotonic()
        longest = self.config.timeout_graceful_shutdown or 0
        shortest = min(longest, SHOW_DRAINING_S) if longest > INTERRUPT_GRACE_S else 0
        while not self.force_exit and (spent := time.monotonic() - started) < longest:
            if spent >= shortest and not self._services.gate.inside:
                break
            await asyncio.sleep(0.05)
        self.config.timeout_graceful_shutdown = AFTER_DRAIN_S
        if self.force_exit:  # uvicorn would leave those under way without a last word
            for task in self.server_state.tasks:
                task.cancel()
        await super().shutdown(sockets)
        self._bounding.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, the second ends at once. Unlike uvicorn's, it is not raised again afterwards."""
        self._services.gate.drain()
        if self.should_exit:
            self.force_exit = True
        elif sig == signal.SIGINT:
            self.config.timeout_graceful_shutdown = INTERRUPT_GRACE_S
        self.should_exit = True

    def ready(self, services: Services) -> None:
        """Say where the server is and what to type."""
        host, port = self._settings.host, self._listeners[0].getsockname()[1]
        shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host.strip("[]")  # noqa: S104
        address = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
        self._console.ready(
            address=address,
            model=services.model_names[0],
            docs=f"{address}/docs",
            log_file=str(self._log_file),
            curl=curl_line(address, services.model_names[0], with_key=len(services.keys) > 0),
        )

    def failed(self, title: str, hint: str) -> None:
        """Say what happened, answer what can be answered, and end with a failure."""
        self._console.fail(title, hint, _tail(self._log_file), str(self._log_file))
        self._status = FAILED
        self._services.gate.drain()
        self.config.timeout_graceful_shutdown = INTERRUPT_GRACE_S
        self.should_exit = True


PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAHAAAABwAQMAAAD8LmYIAAAABlBMVEX6+vXcKChOKefdAAAAd0lEQVR42u2RMQqAMAxFn1VwdXSz"
    "R/FoHq2jx/AIjg6lcdMvUhTcpG/KSz4NofBHhnBR29RqS0ftoKFS7SGIevCiioMROt1j56ZbuAKa/FNXddp8Cn/RBKS3YQNiPjyB"
    "nh9gzYcXWKTTmuk0YrkfdICfKRQKv2MHehwaNkMSCLwAAAAASUVORK5CYII="
)
"""A PNG of 112x112 pixels: a red circle at the top left."""


def curl_line(address: str, model: str, *, with_key: bool) -> str:
    """A command that asks about a picture, ready to paste."""
    key = " -H 'Authorization: Bearer YOUR_KEY'" if with_key else ""
    picture = f'{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{PICTURE}"}}}}'
    question = '{"type":"text","text":"Describe this image."}'
    body = f'{{"model":"{model}","messages":[{{"role":"user","content":[{picture},{question}]}}]}}'
    return f"curl {address}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'"


def _allow_descriptors() -> None:
    """Each connection and each large picture in memory takes one; many systems give 1,024 unless asked for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def most_connections() -> int:
    """As many as leave a quarter of this process's descriptors for pictures, hosts and the engine."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, DESCRIPTORS)) * 3 // 4


def _return_large_blocks() -> None:
    """Have glibc give the memory of large request bodies back as soon as they are freed (mallopt(3)).

    By itself it raises the size of what it gives back with every large block that it sees, up to 32 MiB.
    """
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def _check(settings: Settings) -> None:
    """Find now what would otherwise be found only when the model is up."""
    for flag, check in (
        ("--fetch-allowed-hosts", lambda: AllowList.parse(hosts=settings.fetch_allowed_hosts)),
        ("--fetch-allowed-networks", lambda: AllowList.parse(networks=settings.fetch_allowed_networks)),
        ("--media-folders", lambda: Folders(settings.media_folders)),
    ):
        try:
            check()
        except ValueError as error:
            raise SettingsError(f"{flag}: {error}") from error
    if settings.node_rank > 0:
        raise SettingsError(
            "--node-rank: this server is for node 0. On the others run the engine without a server: "
            f"vllm serve MODEL --headless --nnodes {settings.nnodes} --node-rank {settings.node_rank} "
            f"--master-addr {settings.master_addr} --master-port {settings.master_port}"
        )


def _keys(settings: Settings) -> KeyRing:
    try:
        return key_ring(settings)
    except KeysError as error:
        raise SettingsError(str(error)) from error


def _metrics_listener(settings: Settings) -> list[socket.socket]:
    if settings.metrics_port is None:
        return []
    return [_listen("--metrics-port", settings.metrics_host or settings.host, settings.metrics_port)]


def _listen(flag: str, host: str, port: int) -> socket.socket:
    """Take the port before anything slow is done, so that one in use is known at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"{flag}: {host}:{port} cannot be listened on ({error.strerror}). "
            f"Choose another {flag}, or end what runs there."
        ) from error
    listener.listen(2048)
    listener.set_inheritable(False)
    return listener


def _tail(log_file: Path) -> list[str]:
    try:
        with log_file.open("rb") as log:
            log.seek(max(0, log_file.stat().st_size - TAIL_BYTES))
            return log.read(TAIL_BYTES).decode("utf-8", "replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []


def _leave(status: int, terminal: TextIO) -> NoReturn:
    """End the process now: taking torch and vLLM apart costs 2 s, and a worker thread may still be importing them."""
    with contextlib.suppress(OSError):  # a full disk
        sys.stdout.flush()
        terminal.flush()
    os._exit(status)
