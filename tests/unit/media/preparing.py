"""A whole media room for tests: real decode workers, and a web that is a table of pages."""

from __future__ import annotations

import base64
import io
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from PIL import Image

from server.admission.bodies import BodyBudget
from server.core import ClipSource, DocumentSource, FrameChoice, Opened, Picture, PictureSource, PixelBudget, Source
from server.media.fetching.fetch import Fetcher, Order, Reply
from server.media.fetching.files import Folders
from server.media.fetching.freshness import NOTHING
from server.media.fetching.remote import RemoteFiles
from server.media.limits import RequestLimits, WorkLimits
from server.media.memory import MemoryBudget
from server.media.prepare import Preparer
from server.media.workers import worker
from server.media.workers.pool import WorkerPool


def drawn(width: int = 100, height: int = 60, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def picture(width: int = 100, height: int = 60, seed: int = 0, kind: str = "PNG") -> bytes:
    target = io.BytesIO()
    drawn(width, height, seed).save(target, kind)
    return target.getvalue()


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def where(index: int) -> str:
    return f"messages[0].content[{index}].image_url.url"


def source(url: str, index: int = 0, **budget: int) -> PictureSource:
    return PictureSource(url, where(index), PixelBudget(**budget))


def frames(*urls: str, budget: PixelBudget = PixelBudget(), **choice: Any) -> ClipSource:  # noqa: B008  frozen
    return ClipSource(urls, "messages[0].content[0].video", False, budget, FrameChoice(**choice))


def clip(url: str, budget: PixelBudget = PixelBudget(), **choice: Any) -> ClipSource:  # noqa: B008  frozen
    return ClipSource((url,), "messages[0].content[0].video_url.url", True, budget, FrameChoice(**choice))


def document(data: bytes, pages: tuple[tuple[int, int | None], ...] = (), dpi: float | None = None) -> DocumentSource:
    return DocumentSource(data_url(data, "application/pdf"), "messages[0].content[0].file.file_data", pages, dpi)


class Web(Fetcher):
    """A fetcher whose web is a table of pages: bytes, an error, or a call that gives one of them."""

    def __init__(self, **pages: bytes | Exception | Callable[[], Any]) -> None:
        super().__init__()
        self.pages = pages
        self.asked: list[str] = []
        self.cancelled: list[str] = []

    async def get(self, order: Order) -> Reply:
        name = order.remote.url.removeprefix("http://")
        self.asked.append(name)
        page = self.pages[name]
        try:
            if callable(page):
                page = await page()
        except anyio.get_cancelled_exc_class():
            self.cancelled.append(name)
            raise
        if isinstance(page, Exception):
            raise page
        assert isinstance(page, bytes)
        order.spend(len(page))
        return Reply(page, NOTHING)


@dataclass
class Room:
    """A Preparer and what stands around it."""

    preparer: Preparer
    web: Web = field(default_factory=Web)

    async def open(self, *sources: Source, tenant: str = "tenant") -> list[Opened]:
        async with self.preparer.opened(sources, tenant) as opened:
            return opened

    async def pictures(self, *sources: Source, tenant: str = "tenant") -> list[Picture]:
        return [picture for one in await self.open(*sources, tenant=tenant) for picture in one.pictures]

    def reading(self, name: str, label: str = "") -> float:
        return next(
            reading.value
            for reading in self.preparer.readings()
            if reading.name == name and (not label or label in dict(reading.labels).values())
        )


@asynccontextmanager
async def room(
    limits: RequestLimits | None = None,
    work: WorkLimits | None = None,
    *,
    web: Web | None = None,
    folders: Sequence[Path] = (),
    memory: int = 1 << 30,
    cache: int = 1 << 26,
    workers: int = 1,
    seconds: float = 30.0,
    worker_memory: int = 1 << 30,
    decoding: int = 1 << 32,
    held: BodyBudget | None = None,
    start: bool = True,
) -> AsyncIterator[Room]:
    work, web = work or WorkLimits(), web or Web()
    bounds = worker.Bounds(worker_memory, seconds)
    preparer = Preparer(
        limits or RequestLimits(),
        work,
        pool=WorkerPool(worker.main, work, bounds, size=workers, seconds=seconds),
        remote=RemoteFiles(web, cache_bytes=1 << 20, slots=16),
        folders=Folders(folders),
        held=held or BodyBudget(1 << 40, 1),
        memory=MemoryBudget(memory),
        decoding=MemoryBudget(decoding),
        worker_memory=worker_memory,
        cache_bytes=cache,
    )
    if start:
        await preparer.start()
    try:
        yield Room(preparer, web)
    finally:
        await preparer.aclose()
