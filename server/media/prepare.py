"""All pictures of a request, from what the client named to patches: parse, fetch, decode, resize, cut."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anyio
import anyio.to_thread
import numpy as np
from PIL import Image

from server.core import Picture, PictureSource, PixelBudget
from server.errors import BadRequest, ContextLengthExceeded, InvalidImage
from server.media.decode import DecodeLimits, decode_picture
from server.media.fetch import Fetcher, FetchLimits
from server.media.pixels import PixelLimits, check_budget, patchify, picture_tokens, target_size
from server.media.sources import Inline, Remote, parse_source, too_large_together

_DIGEST_VERSION = b"picture-1"
"""Enters every digest. Change it whenever the same bytes and size would give other patches."""


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """What the pictures of one request may cost. The defaults suit strangers on a machine of moderate size."""

    max_pictures: int = 32
    """Pictures in a request."""
    max_picture_bytes: int = 20 * 2**20
    """Bytes of one picture file, sent along or fetched."""
    max_request_bytes: int = 64 * 2**20
    """Bytes of all picture files of a request, each counted once however often it is named."""
    max_request_tokens: int = 32_768
    """Prompt tokens of all pictures of a request; more than the model's context is never of use."""
    max_decoded_pixels: int = 100_000_000
    """Pixels of one picture before it is resized."""
    decode_threads: int = field(default_factory=lambda: min(8, os.cpu_count() or 1))
    """Pictures decoded at once, over all requests. The worst case takes max_decoded_pixels * 12 bytes for each."""
    remote: bool = True
    """Whether pictures are fetched from http(s) URLs at all."""
    fetch_timeout_s: float = 10.0
    """Seconds for one fetch, redirects included."""
    fetch_concurrency: int = 32
    """Fetches at once, over all requests."""
    max_redirects: int = 3
    """Redirects followed for one picture."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts, or host:port, that may be fetched from wherever they lead."""
    allowed_networks: tuple[str, ...] = ()
    """Networks that may be fetched from although they are not public."""
    ports: tuple[int, ...] = (80, 443)
    """Ports that may be dialled at hosts the operator did not name."""

    def __post_init__(self) -> None:
        """Raises ValueError for a limit that would let nothing through."""
        counts = (self.max_picture_bytes, self.max_request_bytes, self.max_request_tokens, self.decode_threads)
        if self.max_pictures < 0 or min(counts) < 1:
            raise ValueError("media limits must be positive")

    @property
    def fetch(self) -> FetchLimits:
        """The part that the fetcher keeps."""
        return FetchLimits(
            max_bytes=self.max_picture_bytes,
            timeout_s=self.fetch_timeout_s,
            max_redirects=self.max_redirects,
            allowed_hosts=self.allowed_hosts,
            allowed_networks=self.allowed_networks,
            ports=self.ports,
            concurrency=self.fetch_concurrency,
        )

    @property
    def decode(self) -> DecodeLimits:
        """The part that the decoder keeps."""
        return DecodeLimits(max_pixels=self.max_decoded_pixels)


def prepare_picture(
    data: bytes,
    budget: PixelBudget,
    limits: PixelLimits,
    decode_limits: DecodeLimits,
    param: str | None,
    tenant: str,
) -> Picture:
    """One picture file as the engine takes it. Needs no event loop and keeps no state, so any worker can run it.

    Resizing is Pillow's bicubic, as in qwen-vl-utils, and is skipped where the size is already right. `param` is where
    the picture stands in the request; `tenant` enters the digest, so that no caller's picture answers for another's.

    Raises InvalidImage as `decode_picture`, and BadRequest as `target_size`.
    """
    image = decode_picture(data, decode_limits, param=param)
    return _cut(image, target_size(image.height, image.width, budget, limits, param=param), data, tenant)


def _cut(image: Image.Image, size: tuple[int, int], data: bytes, tenant: str) -> Picture:
    """A decoded picture, resized to (height, width) and cut into patches."""
    height, width = size
    resized = image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)
    patches, grid = patchify(np.asarray(resized))
    return Picture(patches, grid, picture_digest(data, (width, height), tenant), image.size)


def picture_digest(data: bytes, size: tuple[int, int], tenant: str) -> str:
    """A name (64 hex digits, BLAKE2b) for the patches of these bytes at this (width, height), for this tenant only."""
    digest = hashlib.blake2b(digest_size=32, person=_DIGEST_VERSION)
    salt = tenant.encode("utf-8", "surrogatepass")
    digest.update(b"%d:%b|%dx%d|" % (len(salt), salt, *size))
    digest.update(data)
    return digest.hexdigest()


class Preparer:
    """Prepares the pictures of requests, fetching and decoding several at once within the limits of the house.

    Belongs to one event loop; close it with `aclose`.
    """

    def __init__(
        self, pixels: PixelLimits, limits: MediaLimits | None = None, *, fetcher: Fetcher | None = None
    ) -> None:
        self._pixels = pixels
        self._limits = limits or MediaLimits()
        self._fetcher = fetcher or Fetcher(self._limits.fetch)
        self._decoders = anyio.CapacityLimiter(self._limits.decode_threads)

    async def prepare(self, sources: Sequence[PictureSource], tenant: str) -> list[Picture]:
        """The pictures in the order of `sources`. One that is named several times is fetched once.

        Everything that can be refused without fetching or decoding is refused first. The first failure stops the rest
        and is raised alone: InvalidImage or BadRequest with the `param` of its picture, or ContextLengthExceeded.
        Cancelling stops fetches at once, and waits for pictures that are just being decoded.
        """
        spent = _Spent(self._limits)
        contents = self._check(sources, spent)
        named: dict[str, Counter[PixelBudget]] = {url: Counter() for url in contents}
        for source in sources:
            named[source.url][source.budget] += 1
        pictures: dict[tuple[str, PixelBudget], Picture] = {}
        failures: list[Exception] = []

        async def prepare_url(url: str) -> None:
            budgets = named[url]
            try:
                prepared = await self._prepare_content(contents[url], budgets, tenant, spent)
                for (budget, times), picture in zip(budgets.items(), prepared, strict=True):
                    spent.add_tokens(times * picture_tokens(picture.grid_thw))
                    pictures[url, budget] = picture
            except Exception as error:
                # Kept, not raised: a task group would wrap it, and failures of the same moment, in an ExceptionGroup.
                failures.append(error)
                tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            for url in contents:
                tasks.start_soon(prepare_url, url)
        if failures:
            raise failures[0]
        return [pictures[source.url, source.budget] for source in sources]

    async def aclose(self) -> None:
        """Close the fetcher's connections."""
        await self._fetcher.aclose()

    def _check(self, sources: Sequence[PictureSource], spent: _Spent) -> dict[str, Inline | Remote]:
        """What each URL names, after every check that needs neither a socket nor a decoder."""
        if len(sources) > self._limits.max_pictures:
            raise BadRequest(
                f"The request has {len(sources)} pictures, more than the {self._limits.max_pictures} allowed.",
                param=sources[self._limits.max_pictures].param,
            )
        contents: dict[str, Inline | Remote] = {}
        for source in sources:
            check_budget(source.budget, self._pixels, param=source.param)
            if source.url in contents:
                continue
            content = parse_source(source, max_bytes=self._limits.max_picture_bytes)
            if isinstance(content, Inline):
                spent.add_bytes(content.size, source.param)
            elif not self._limits.remote:
                raise InvalidImage(
                    "This server does not fetch pictures: send a data URL, such as data:image/png;base64,...",
                    code="invalid_image_url",
                    param=source.param,
                )
            contents[source.url] = content
        return contents

    async def _prepare_content(
        self, content: Inline | Remote, budgets: Mapping[PixelBudget, int], tenant: str, spent: _Spent
    ) -> list[Picture]:
        data: bytes | Inline
        if isinstance(content, Inline):
            data = content
        else:
            param = content.param
            data = await self._fetcher.get(content.url, param=param, spend=lambda size: spent.add_bytes(size, param))
        # The seam: only plain data crosses, into one pure function, so that processes can take the threads' place.
        # Not abandoned on cancel: a thread left behind would decode outside the limiter's count.
        return await anyio.to_thread.run_sync(
            _prepare_all,
            data,
            budgets,
            self._pixels,
            self._limits,
            content.param,
            tenant,
            limiter=self._decoders,
        )


def _prepare_all(
    content: bytes | Inline,
    budgets: Mapping[PixelBudget, int],
    pixels: PixelLimits,
    limits: MediaLimits,
    param: str,
    tenant: str,
) -> list[Picture]:
    """One picture file at each of `budgets` (with how often each is asked for); what runs in a worker."""
    data = content.decode() if isinstance(content, Inline) else content
    image = decode_picture(data, limits.decode, param=param)
    sizes = [target_size(image.height, image.width, budget, pixels, param=param) for budget in budgets]
    if sum(h * w * times for (h, w), times in zip(sizes, budgets.values(), strict=True)) > (
        limits.max_request_tokens * pixels.factor**2
    ):
        raise too_many_tokens(limits.max_request_tokens)
    return [_cut(image, size, data, tenant) for size in sizes]


def too_many_tokens(most: int) -> ContextLengthExceeded:
    """The pictures of a request alone are longer than the context."""
    return ContextLengthExceeded(
        f"This model's maximum context length is {most} tokens. However, your pictures alone need more. Please send "
        "fewer, or give them a smaller max_pixels. (context_length_exceeded)",
        param="messages",
    )


class _Spent:
    """What one request has used of its limits so far."""

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._bytes = 0
        self._tokens = 0

    def add_bytes(self, size: int, param: str) -> None:
        self._bytes += size
        if self._bytes > self._limits.max_request_bytes:
            raise too_large_together(self._limits.max_request_bytes, param)

    def add_tokens(self, tokens: int) -> None:
        self._tokens += tokens
        if self._tokens > self._limits.max_request_tokens:
            raise too_many_tokens(self._limits.max_request_tokens)
