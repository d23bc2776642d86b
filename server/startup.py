"""Brings the model up behind an open port, and watches that it stays up."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

import anyio.to_thread
import numpy as np

from server.core import GenerationRequest, Message, Opened, Picture, PictureSource, Sampling
from server.engine.checkpoint import find_checkpoint
from server.engine.protocol import Engine, StartupError
from server.engine.setup import EngineSetup
from server.engine.supervisor import Patience, Supervisor
from server.errors import ApiError
from server.families import load_family
from server.families.family import Family, UnknownFamilyError
from server.families.template import template_words
from server.inference import Inference
from server.media.decoding.patches import patchify
from server.media.setup import set_up_media
from server.services import Services
from server.settings import Settings
from server.telemetry.console import Console
from server.telemetry.metrics import watch

BEATS = 5
"""Heartbeats of the engine within the silence that it is allowed."""
WORKERS_UP_WITHIN_S = 120.0
WARM_UP_SIDE = 56
"""Least side of the first picture, in pixels."""
YOUNG_OBJECTS = 10_000
"""That may come to be, and stay, before they are looked through for garbage. Of Python's own choice, 700, a full house
has eighty times as many."""
SetUpEngine = Callable[[Path, Family], EngineSetup]
"""Decides how the engine runs the model in a folder."""


class Steps:
    """The phases of start-up, one after the other, for the console and for /health/ready."""

    def __init__(self, console: Console, services: Services) -> None:
        self._console = console
        self._services = services
        self._open = ""

    def begin(self, name: str, detail: str = "") -> None:
        """End the step before and begin the next, or tell how far this one is. Any thread may call this."""
        if name == self._open:
            self._console.update(detail)
            return
        self.end()
        self._open = name
        self._services.phase = name.lower()
        self._console.begin(name, detail)

    def end(self) -> None:
        """End the step that is open, if one is."""
        if self._open:
            self._open = ""
            self._console.done()


async def bring_up(services: Services, console: Console, set_up_engine: SetUpEngine) -> None:
    """Find the model, start the engine, warm it up; from then on `services` takes requests.

    Raises:
        StartupError: with what happened and what to do next.
    """
    settings, steps = services.settings, Steps(console, services)
    steps.begin("Find the model", settings.model)
    folder = await anyio.to_thread.run_sync(
        find_checkpoint,
        settings.model,
        settings.revision,
        settings.state_folder,
        console.update,
        abandon_on_cancel=True,
    )
    family = await anyio.to_thread.run_sync(_family_of, folder)
    services.template_words = await anyio.to_thread.run_sync(template_words, folder)
    setup = set_up_engine(folder, family)
    steps.end()
    for note in setup.notes:
        console.note(note)
    warm_up = partial(_first_request, family=family) if settings.warmup else None
    services.engine = engine = Supervisor(setup.make, _patience(settings, setup), warm_up)
    watch(lambda: [*services.readings(), *engine.readings()])
    await engine.start(steps.begin)
    services.gate.fit_to_engine(engine.concurrency)
    services.preparer = preparer = set_up_media(
        settings, family, setup.max_pixels, engine.max_model_len, services.bodies
    )
    watch(lambda: [*services.readings(), *engine.readings(), *preparer.readings()])
    workers = asyncio.create_task(preparer.start())
    steps.begin("Start the decode workers")
    await _within(workers, WORKERS_UP_WITHIN_S)
    steps.end()
    if preparer.pool.unboxed:
        console.note(f"Decode workers keep more rights than they need; this machine refuses: {preparer.pool.unboxed}")
    settle_heap()
    services.inference = Inference(
        engine=engine,
        family=family,
        media=preparer,
        gate=services.gate,
        default_max_tokens=settings.default_max_tokens,
        model_name=services.model_names[0],
    )


def settle_heap() -> None:
    """Take what is there for good out of garbage collection, and collect the rest less often.

    With torch and vLLM loaded a full collection takes 0.4 s, in which no request moves. With the house full of requests
    even one of the youngest takes milliseconds, three a second, and finds next to nothing: reference counts free nearly
    all of what a request leaves behind.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _patience(settings: Settings, setup: EngineSetup) -> Patience:
    return Patience(
        restarts=settings.engine_restarts,
        beat_every_s=settings.engine_silence_s / BEATS,
        silent_s=settings.engine_silence_s,
        step_s=settings.engine_step_s or setup.step_s,
    )


async def warm_up(engine: Engine, family: Family) -> None:
    """Run a first picture and a first word through the engine, so that no client waits for what is made lazily."""
    side = math.ceil(WARM_UP_SIDE / family.factor) * family.factor
    patches, grid = patchify(np.zeros((1, side, side, 3), np.uint8), family.patch_size)
    picture = Picture(patches, grid, "warm-up", (side, side))
    source = PictureSource("", "")
    prompt = family.build_prompt([Message("user", (source, "Warm up."))], [Opened(source, (picture,))])
    request = GenerationRequest("warm-up", prompt, Sampling(max_tokens=2, temperature=0.0))
    async with aclosing(engine.generate(request)) as events:
        async for _ in events:
            pass


async def _first_request(engine: Engine, family: Family) -> None:
    try:
        await warm_up(engine, family)
    except ApiError as error:
        raise StartupError(
            f"The engine failed on its first request: {error.message}", "The log holds the engine's own words."
        ) from error


async def _within(workers: asyncio.Task[None], seconds: float) -> None:
    try:
        await asyncio.wait_for(workers, seconds)
    except TimeoutError:
        raise StartupError(
            f"The decode workers did not start within {seconds:g} s.",
            "The log says why; with little memory, lower --decode-workers.",
        ) from None


def _family_of(folder: Path) -> Family:
    try:
        return load_family(folder)
    except UnknownFamilyError as error:
        raise StartupError(str(error), "Choose a model of a known family, or complete its files.") from error
