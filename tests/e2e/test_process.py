"""The server as a process: how it starts, fails and ends. These tests start servers of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest

from server.settings import is_loopback
from tests.e2e.asking import ENDLESS, PATH, Client
from tests.serving import END_DEADLINE_S, START_DEADLINE_S, Server, launch

pytestmark = pytest.mark.e2e


def await_words(lines: Iterator[str]) -> None:
    """Read a stream until the first words have come."""
    while '"content":"' not in (line := next(lines)) or '"content":""' in line:
        pass


def test_a_port_in_use_is_named_at_once(server: Server, client: Client) -> None:
    port = server.address.rpartition(":")[2]
    command = [sys.executable, "-m", "server", "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert f"127.0.0.1:{port} cannot be listened on" in ended.stderr
    assert "Choose another --port" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert client.ask("Hello", max_tokens=4).text


def listening(process: psutil.Process) -> list[Any] | None:
    """Where a process can be reached; None for a decode worker, into whose box only root can look."""
    try:
        return [one.laddr for one in process.net_connections() if one.status == "LISTEN"]
    except psutil.AccessDenied:
        return None


def test_nothing_but_the_http_port_can_be_reached_from_outside(server: Server, client: Client) -> None:
    """The worker's own ports ask nobody for a key, and many connections to one of them end it."""
    port = int(server.address.rpartition(":")[2])
    assert client.ask("Hello", max_tokens=4).text
    seen = [places for process in server.family() if (places := listening(process)) is not None]
    assert len(seen) >= 3, "the server, the engine and its worker"
    found = [place for places in seen for place in places]
    assert ("127.0.0.1", port) in [(place.ip, place.port) for place in found]
    assert [place for place in found if place.port != port and not is_loopback(place.ip)] == []


def test_a_missing_model_is_named(tmp_path: object) -> None:
    with launch("--model", f"{tmp_path}/nothing") as server:
        assert server.process.wait(120) == 1
        assert "There is no folder" in server.output()
        assert "Traceback" not in server.output()


@pytest.mark.parametrize(
    ("sign", "phase"),
    [
        (signal.SIGINT, "import the engine"),
        (signal.SIGTERM, "import the engine"),
        pytest.param(signal.SIGINT, "load the model", marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_loading_ends_everything(model: str, sign: signal.Signals, phase: str) -> None:
    with launch("--model", model) as server:
        server.await_that(lambda: server.reason() == phase, phase, START_DEADLINE_S)
        time.sleep(2)
        assert len(server.family()) > 1, "the engine's processes are expected to come up by now"
        assert server.end(sign, END_DEADLINE_S) == 0
        assert "Traceback" not in server.output()


def test_the_death_of_the_engine_is_told_and_ends_the_server(model: str) -> None:
    with launch("--model", model, "--engine-restarts", "0") as server:
        server.await_ready()
        client = Client(server)
        whole: list[httpx.Response] = []
        asked = client.body("Count to twenty.", max_tokens=3000, **ENDLESS)
        asking = threading.Thread(target=lambda: whole.append(client.post(asked)))
        with client.http, client.http.stream("POST", PATH, json={**asked, "stream": True}) as streamed:
            lines = streamed.iter_lines()
            await_words(lines)
            asking.start()
            server.await_that(lambda: server.metric("vllm:num_requests_running") >= 2, "at work on both", 20)
            family = server.family()
            (core,) = server.named("EngineCore")
            core.kill()
            rest = [line for line in lines if line.startswith("data: ")]
            asking.join(10)
        assert server.reason() is not None
        assert json.loads(rest[-2][6:])["error"]["code"] == "engine_died"
        assert rest[-1] == "data: [DONE]"
        assert whole[0].status_code == 503
        assert whole[0].json()["error"]["code"] == "engine_died"
        assert int(whole[0].headers["retry-after"]) > 0
        assert server.process.wait(60) != 0
        server.require_gone(family)
        assert "The engine died" in server.output()


@pytest.mark.slow
def test_sigterm_lets_requests_finish(model: str) -> None:
    """What is under way is answered to its end, newcomers are sent away, and the status is 0."""
    with launch("--model", model) as server:
        server.await_ready()
        client = Client(server)
        with (
            client.http,
            client.http.stream(
                "POST", PATH, json=client.body("Count to twenty.", max_tokens=300, stream=True, **ENDLESS)
            ) as streamed,
        ):
            lines = streamed.iter_lines()
            await_words(lines)
            family = server.family()
            server.process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line.startswith("data: ")]
        assert '"finish_reason":"length"' in rest[-2]
        assert rest[-1] == "data: [DONE]"
        assert server.process.wait(60) == 0
        server.require_gone(family)


@pytest.mark.slow
def test_a_killed_server_leaves_no_engine(model: str) -> None:
    with launch("--model", model) as server:
        server.await_ready()
        family = server.family()
        assert server.named("EngineCore")
        server.process.kill()
        server.process.wait()
        server.require_gone(family, 5)
