"""Settings to a Preparer."""

from __future__ import annotations

from server import machine
from server.families.family import Family
from server.media.fetching.fetch import Fetcher, FetchLimits
from server.media.fetching.files import Folders
from server.media.fetching.remote import RemoteFiles
from server.media.frames import ClipLimits
from server.media.limits import MIB, DecodeLimits, DocumentLimits, RequestLimits, WorkLimits, memory_or_share
from server.media.memory import HeldBytes, MemoryBudget
from server.media.pixels import FRAMES, PixelLimits
from server.media.prepare import Preparer
from server.media.workers import worker
from server.media.workers.pool import WorkerPool
from server.settings import Settings

SHARE_FOR_DECODING = 2
"""All decode workers together may take one part in so many of the memory, whatever each of them may take."""
SHARE_OF_MEMORY = 4
"""Prepared pictures at work may take one part in so many of the machine's memory."""


def set_up_media(settings: Settings, family: Family, max_pixels: int, max_model_len: int, held: HeldBytes) -> Preparer:
    """A Preparer for a model.

    `max_pixels` is the most that its engine takes in a picture; `held` counts what is fetched.

    Raises ValueError, naming it, for a host, network or folder that cannot be used.
    """
    worker_memory = settings.decode_memory_mib * MIB
    return Preparer(
        _request_limits(settings, family, max_model_len),
        work := _work_limits(settings, family, max_pixels, max_model_len),
        pool=WorkerPool(
            worker.main,
            work,
            worker.Bounds(worker_memory, settings.decode_timeout_s),
            size=settings.decode_workers or machine.hardware_threads(),
            seconds=settings.decode_timeout_s,
        ),
        remote=RemoteFiles(
            Fetcher(fetch_limits(settings)),
            cache_bytes=settings.fetch_cache_mib * MIB,
            slots=settings.fetch_concurrency,
        ),
        folders=Folders(settings.media_folders),
        held=held,
        memory=MemoryBudget(memory_or_share(settings.media_memory_mib, SHARE_OF_MEMORY)),
        decoding=MemoryBudget(max(worker_memory, memory_or_share(None, SHARE_FOR_DECODING))),
        worker_memory=worker_memory,
        cache_bytes=settings.media_cache_mib * MIB,
    )


def fetch_limits(settings: Settings) -> FetchLimits:
    """What is fetched, and from where."""
    return FetchLimits(
        timeout_s=settings.fetch_timeout_s,
        allowed_hosts=tuple(settings.fetch_allowed_hosts),
        allowed_networks=tuple(settings.fetch_allowed_networks),
        ports=tuple(settings.fetch_ports),
        concurrency=settings.fetch_concurrency,
        user_agent=settings.fetch_user_agent,
        ca_file=None if settings.fetch_ca_file is None else str(settings.fetch_ca_file),
        proxy=None if settings.fetch_proxy is None else settings.fetch_proxy.get_secret_value(),
    )


def _request_limits(settings: Settings, family: Family, max_model_len: int) -> RequestLimits:
    return RequestLimits(
        max_pictures=settings.max_pictures,
        max_clips=settings.max_clips,
        max_pages=settings.max_pages,
        max_bytes={
            "image": settings.max_picture_mib * MIB,
            "video": settings.max_clip_mib * MIB,
            "file": settings.max_document_mib * MIB,
        },
        max_request_bytes=settings.max_body_mib * MIB,
        max_tokens=max_model_len,
        takes_clips=family.takes_clips,
    )


def _work_limits(settings: Settings, family: Family, max_pixels: int, max_model_len: int) -> WorkLimits:
    ceiling = min(settings.max_pixels_ceiling or settings.max_pixels or max_pixels, max_pixels)
    default = min(settings.max_pixels or max_pixels, ceiling)
    pixels = PixelLimits(
        min_pixels=min(settings.min_pixels or family.min_pixels, default),
        max_pixels=default,
        hard_max_pixels=ceiling,
        factor=family.factor,
        patch=family.patch_size,
        merge=family.merge_size,
        max_ratio=settings.max_aspect_ratio,
    )
    return WorkLimits(
        pixels=pixels,
        decode=DecodeLimits(
            max_pixels=settings.max_picture_megapixels * 1_000_000, scaled_decoding=settings.scaled_decoding
        ),
        clips=_clip_limits(settings, family, pixels, max_model_len),
        documents=DocumentLimits(
            max_pages=max(1, settings.max_pages),
            max_dpi=settings.max_page_dpi,
            refuse_missing_letters=settings.missing_letters == "refuse",
        ),
    )


def _clip_limits(settings: Settings, family: Family, pixels: PixelLimits, max_model_len: int) -> ClipLimits:
    """qwen-vl-utils' own numbers, within what the model and its context take.

    Like there, a clip fills nine tenths of the context at most by default; and without a wish it has no more frames
    than fit there at their least size.
    """
    own, block = ClipLimits(), pixels.token_pixels
    highest = min(own.frame_max_pixels, family.max_frame_pixels, pixels.hard_max_pixels)
    lowest = min(own.frame_min_pixels, highest)
    total = min(own.total_pixels, max_model_len * 9 // 10 * block)
    most_frames = min(own.max_frames, settings.max_clip_frames, max(FRAMES, total * FRAMES // int(lowest * 1.05)))
    return ClipLimits(
        frame_min_pixels=lowest,
        frame_max_pixels=highest,
        total_pixels=total,
        min_frames=min(own.min_frames, most_frames),
        max_frames=most_frames,
        hard_max_frames=settings.max_clip_frames,
        hard_max_pixels=pixels.hard_max_pixels,
        hard_total_pixels=max_model_len * block,
        max_seconds=settings.max_clip_seconds,
        factor=pixels.factor,
        max_ratio=pixels.max_ratio,
    )
