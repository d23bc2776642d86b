"""Wires the house together: services, middleware, routes, and what happens from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Protocol

import anyio.to_thread
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from server import __version__
from server.admission.bodies import BodyBudget
from server.admission.controller import TtftController
from server.admission.gate import Gate, GateLimits, Observe
from server.admission.keys import KeyRing
from server.engine.checkpoint import served_names
from server.engine.identity import engine_version, fingerprint
from server.engine.protocol import StartupError
from server.media.limits import MIB, memory_or_share
from server.routes import chat, health, models
from server.routes.access import DOCS_ASSETS, DOCS_PATH, Access, DocsPolicy
from server.routes.inflate import Inflate
from server.routes.middleware import Authentication, BodyLimit, LoopbackGuard, PageGuard, RequestContext, as_api_error
from server.routes.preflight import Preflights
from server.routes.replies import error_response
from server.services import Services
from server.settings import Settings
from server.startup import SetUpEngine, bring_up
from server.telemetry import metrics, traces
from server.telemetry.console import Console

log = logging.getLogger(__name__)

EXPOSED_HEADERS = ["x-request-id", "retry-after", "x-should-retry", "x-image-hash", "x-ignored-parameters"]
"""Headers of replies that a browser's OpenAI SDK reads."""

LEAST_PREFILL_TOKENS = 256
"""However slow the engine is, some short requests at once."""
SHARE_OF_MEMORY = 8
"""Request bodies, and what is fetched for them, may take one part in so many of the machine's memory."""


class Events(Protocol):
    """What the process that runs the app wants to be told."""

    def ready(self, services: Services) -> None:
        """The model is up; requests are taken."""

    def failed(self, title: str, hint: str) -> None:
        """The model did not come up, or the engine died: the process should end with a failure."""


class NoEvents:
    """For an app that somebody else runs, such as a test."""

    def ready(self, services: Services) -> None: ...

    def failed(self, title: str, hint: str) -> None:
        log.error("%s %s", title, hint)


def create_app(
    settings: Settings,
    *,
    set_up_engine: SetUpEngine,
    keys: KeyRing | None = None,
    console: Console | None = None,
    events: Events | None = None,
) -> FastAPI:
    """An ASGI app that begins to start its engine in the background as soon as it runs."""
    services = Services(
        settings=settings,
        keys=key_ring(settings) if keys is None else keys,
        gate=_gate(settings),
        bodies=_bodies(settings),
        model_names=served_names(settings.model, settings.served_model_name),
        version=__version__,
        engine_version=engine_version(settings.engine),
        fingerprint=fingerprint(settings),
    )
    console = console or Console(quiet=True)
    house = RunningServer(services, set_up_engine, console, events or NoEvents())
    app = _app(settings, house)
    app.state.services = services
    for room in (chat, models, health):
        app.include_router(room.router)
    app.add_exception_handler(HTTPException, _http_error)
    _add_middleware(app, services)
    return app


def _app(settings: Settings, house: RunningServer) -> FastAPI:
    """FastAPI, with the API's description if it is wanted; its pages are made of files of this server alone."""
    common: dict[str, Any] = {"title": "AIN Server", "version": __version__, "lifespan": house.lifespan}
    if settings.docs == "off":
        return FastAPI(**common, root_path=settings.root_path, openapi_url=None)
    return FastAPIOffline(**common, root_path=settings.root_path, docs_url=DOCS_PATH, static_url=DOCS_ASSETS)


def _access(settings: Settings, keys: KeyRing) -> Access:
    metrics_keys = [] if settings.metrics_key is None else [settings.metrics_key.get_secret_value()]
    return Access(keys, KeyRing(metrics_keys), settings.metrics_port, settings.docs)


def _bodies(settings: Settings) -> BodyBudget:
    return BodyBudget(memory_or_share(settings.max_bodies_mib, SHARE_OF_MEMORY), settings.max_body_mib * MIB)


def _gate(settings: Settings) -> Gate:
    target = settings.ttft_target_s
    observe = Observe(metrics.QUEUE_SECONDS.observe, metrics.TTFT_SECONDS.observe)
    limits = GateLimits(
        max_requests=settings.max_requests,
        max_per_caller=settings.max_requests_per_key,
        max_wait_s=settings.queue_timeout_s if target is None else min(settings.queue_timeout_s, target / 2),
        max_running=settings.max_running,
        max_prefill_tokens=settings.max_prefill_tokens,
    )
    if target is None:
        return Gate(limits, observe=observe)
    # Half of it for waiting in the house, half for the engine.
    controller = TtftController(target / 2, least=LEAST_PREFILL_TOKENS, most=settings.max_prefill_tokens)
    return Gate(limits, controller, observe)


def key_ring(settings: Settings) -> KeyRing:
    """The keys that the settings name.

    Raises:
        KeysError: a key is too short, named twice, or the file cannot be read.
    """
    return KeyRing([key.get_secret_value() for key in settings.api_keys], settings.api_keys_file)


def _add_middleware(app: FastAPI, services: Services) -> None:
    """Innermost first: Starlette wraps each one added around those before."""
    settings = services.settings
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_mib * MIB,
        budget=services.bodies,
        timeout_s=settings.body_timeout_s,
    )
    app.add_middleware(Inflate)
    app.add_middleware(Authentication, access=_access(settings, services.keys), presence=services.presence)
    app.add_middleware(DocsPolicy)
    if settings.on_loopback and not len(services.keys) and not settings.allow_unauthenticated:
        app.add_middleware(LoopbackGuard)
    if not len(services.keys):
        app.add_middleware(PageGuard, origins=settings.cors_origins)
    app.add_middleware(RequestContext)
    if settings.cors_origins:  # outermost, so that a browser may read errors too
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.add_middleware(Preflights, origins=settings.cors_origins)


async def _http_error(request: Request, error: Exception) -> Response:
    response = error_response(as_api_error(error))
    response.headers.update(getattr(error, "headers", None) or {})  # Allow, of a 405
    return response


class RunningServer:
    """The life of an app: bring the model up behind the open port, watch it, and put everything away at the end."""

    def __init__(self, services: Services, set_up_engine: SetUpEngine, console: Console, events: Events) -> None:
        self._services = services
        self._set_up_engine = set_up_engine
        self._console = console
        self._events = events

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Serve while the block runs; requests get 503 until the model is up."""
        settings = self._services.settings
        start = partial(
            traces.start, settings.otlp_endpoint, version=__version__, sample_ratio=settings.otlp_sample_ratio
        )
        await anyio.to_thread.run_sync(start)
        life = asyncio.create_task(self._live())
        watch = asyncio.create_task(self._services.key_watch.run())
        try:
            yield
        finally:
            for task in (watch, life):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            self._services.gate.drain()
            await self._put_away()
            await anyio.to_thread.run_sync(traces.stop)

    async def _live(self) -> None:
        services = self._services
        try:
            await bring_up(services, self._console, self._set_up_engine)
            self._events.ready(services)
            if services.engine is not None:
                await services.engine.watch()
        except StartupError as error:
            services.phase = "failed to start"
            self._events.failed(error.message, error.hint)
        except Exception as error:
            log.exception("start-up failed")
            services.phase = "failed to start"
            self._events.failed(f"The server did not start: {type(error).__name__}: {error}", "See the log.")

    async def _put_away(self) -> None:
        if self._services.preparer is not None:
            await self._services.preparer.aclose()
        if self._services.engine is not None:
            await self._services.engine.stop()
