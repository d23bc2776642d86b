"""AIN Server as a deployment of Ray Serve, for clusters that run Ray anyway. From the repository's folder:

    pip install 'ray[serve]'
    AIN_MODEL=MBZUAI/AIN AIN_API_KEYS_FILE=keys.txt PYTHONPATH=$PWD serve run --app-dir docker/ray serve_app:app

Every setting is taken from AIN_... variables of the machine on which this is run, and handed on to the replicas; files
that they name have to be on all machines. Ray chooses address and port. Without keys a server answers to its own
machine's name alone: set keys, or AIN_ALLOW_UNAUTHENTICATED=true.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from ray import serve

from server.app import create_app
from server.engine.arguments import engine_environment
from server.engine.device import find_device
from server.engine.processes import ENGINE_FORK_SERVER, start_fork_server
from server.engine.setup import set_up_engine
from server.media.workers.pool import DECODERS
from server.services import Services
from server.settings import load_settings

REPLICAS = int(os.environ.get("REPLICAS_OF_AIN", "3"))
ROOM = 4
"""How many times the server's own limit Ray lets in: what is over the limit is for the server to queue, or to shed."""
LOOK_EVERY_S = 0.2


class Failures:
    """What the app tells of its end, kept for Ray to find."""

    def __init__(self) -> None:
        self.last = ""

    def ready(self, services: Services) -> None: ...

    def failed(self, title: str, hint: str) -> None:
        self.last = f"{title} {hint}"


def build() -> FastAPI:
    """The app of one replica, made in the replica's own process. It has started once its engine takes requests."""
    settings = load_settings([])
    device = find_device(settings.device)
    log_file = settings.log_path(os.getpid())
    log_file.parent.mkdir(parents=True, exist_ok=True)
    if settings.engine == "vllm":
        scratch = Path(tempfile.mkdtemp(prefix="ain-"))
        start_fork_server([ENGINE_FORK_SERVER, DECODERS], engine_environment(settings, device, log_file, scratch))
    else:
        start_fork_server([DECODERS], {})
    failures = Failures()
    app = create_app(
        settings,
        set_up_engine=lambda folder, family: set_up_engine(settings, folder, family, device, log_file),
        events=failures,
    )
    app.state.failures = failures
    begin = app.router.lifespan_context

    @asynccontextmanager
    async def until_ready(app: FastAPI) -> AsyncIterator[None]:
        async with begin(app):
            while app.state.services.not_ready_because() is not None:
                if failures.last:
                    raise RuntimeError(failures.last)
                await asyncio.sleep(LOOK_EVERY_S)
            yield

    app.router.lifespan_context = until_ready
    return app


@serve.ingress(build)
class AinServer:
    """One replica: a whole server with an engine of its own, on one machine."""

    _asgi_app: FastAPI
    """What `build` made; Ray puts it here."""

    async def check_health(self) -> None:
        """Have Ray replace a replica whose engine is gone for good; one that is merely full is well."""
        if self._asgi_app.state.failures.last:
            raise RuntimeError(self._asgi_app.state.failures.last)


_settings = load_settings([])
_gpus = _settings.tensor_parallel_size * _settings.pipeline_parallel_size
_on_cpu = _settings.device == "cpu" or _settings.engine == "scripted"

app = serve.deployment(
    AinServer,
    name="ain",
    num_replicas=REPLICAS,
    max_ongoing_requests=ROOM * _settings.max_requests,  # 5 by default, and the rest would wait where nobody sheds it
    health_check_period_s=2,
    health_check_timeout_s=10,
    graceful_shutdown_wait_loop_s=2,
    graceful_shutdown_timeout_s=_settings.drain_timeout_s + 15,
    ray_actor_options={
        "num_cpus": 1 if _on_cpu else 4,
        "num_gpus": 0 if _on_cpu else _gpus,
        # Workers have the environment of the machine's Ray, not of who starts this.
        "runtime_env": {"env_vars": {name: value for name, value in os.environ.items() if name.startswith("AIN_")}},
    },
).bind()
