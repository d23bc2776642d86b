"""All pictures, clips and documents of a request, from what the client named to patches.

check  ->  get the bytes  ->  a share of the memory  ->  the cache, or a decode worker  ->  patches
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from server.core import Opened, Picture, Reading, Source
from server.errors import InternalError, invalid_media
from server.media.cache import ByteCache, SingleFlight
from server.media.checks import Checked, Spent, check, check_counts, check_size, settle
from server.media.digest import digest_of
from server.media.estimate import decode_memory, estimated_tokens
from server.media.fetching.files import Folders
from server.media.fetching.remote import RemoteFiles
from server.media.formats import HEAD_BYTES
from server.media.heads import first_bytes
from server.media.limits import RequestLimits, WorkLimits, patch_memory
from server.media.memory import HeldBytes, MemoryBudget
from server.media.pixels import picture_tokens
from server.media.sources import Content, Inline, Remote
from server.media.workers.channel import memory_with, sealed_array
from server.media.workers.jobs import KIND_OF, File, Job, pack_job, pictures_of, require_wanted, unpack_answer
from server.media.workers.pool import Answer, WorkerDied, WorkerOverran, WorkerPool

LARGE_BYTES = 1 << 20
"""What is larger is hashed and copied in a thread, so that the event loop stands still for about a millisecond."""
TRIES = 2
"""A worker may die for reasons of its own; a job at which two die is at fault itself."""

Pictures = tuple[Picture, ...]
Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Loaded:
    """The bytes of a file in pieces, perhaps still in base64."""

    pieces: tuple[bytes, ...]
    base64: bool
    escaped: bool = False

    @property
    def size(self) -> int:
        """Bytes of all pieces."""
        return sum(map(len, self.pieces))

    @property
    def head(self) -> bytes | None:
        """How the file begins; None where its base64 cannot be read."""
        return first_bytes(self.pieces, HEAD_BYTES, base64=self.base64, escaped=self.escaped)


Ready = tuple[Checked, Sequence[Loaded]]
"""A source whose files are here, and of which it is known what they are."""


class Preparer:
    """Prepares what requests hold, several at once within the limits of the house.

    Belongs to one event loop; start it, and close it with `aclose`.
    """

    def __init__(
        self,
        limits: RequestLimits,
        work: WorkLimits,
        *,
        pool: WorkerPool,
        remote: RemoteFiles,
        folders: Folders,
        held: HeldBytes,
        memory: MemoryBudget,
        decoding: MemoryBudget,
        worker_memory: int,
        cache_bytes: int,
    ) -> None:
        """`held` counts the bytes of files that do not come with requests. `decoding` is the memory of all decode
        workers together, of which a job takes at most `worker_memory`.
        """
        self._limits = limits
        self.work = work
        self.pool = pool
        self.remote = remote
        self._folders = folders
        self._held = held
        self.memory = memory
        self.decoding = decoding
        self._worker_memory = worker_memory
        self.cache: ByteCache[str, Pictures] = ByteCache(cache_bytes, _size)
        self._decoding: SingleFlight[tuple[str, str], Pictures] = SingleFlight()

    async def start(self) -> None:
        """Return once the decode workers are up."""
        await self.pool.start()

    async def aclose(self) -> None:
        """End the workers, close all connections, and let go of the pictures that were kept."""
        await self.pool.aclose()
        await self.remote.aclose()
        self.cache.clear()

    def readings(self) -> list[Reading]:
        """How the media room is, for /metrics."""
        return [
            *self.pool.readings(),
            Reading("ain_media_memory_bytes", "Memory set aside for pictures at work.", self.memory.used),
            Reading("ain_media_memory_limit_bytes", "How much of it there is.", self.memory.size),
            Reading("ain_decode_memory_bytes", "Memory set aside for decoding.", self.decoding.used),
            Reading("ain_decode_memory_limit_bytes", "How much of it there is for all workers.", self.decoding.size),
            *self.cache.readings("prepared"),
            *self.remote.cache.readings("fetched"),
        ]

    @asynccontextmanager
    async def opened(self, sources: Sequence[Source], tenant: str) -> AsyncIterator[list[Opened]]:
        """What the sources hold, in their order, for as long as the context lasts.

        Everything that can be refused without fetching or decoding is refused first. The first failure stops the rest
        and is raised alone: BadRequest and its kinds with the `param` of its source, or ContextLengthExceeded.
        Cancelling stops fetches at once; a worker finishes the job that it has begun.
        """
        if not sources:
            yield []
            return
        checked = check(sources, self._limits, self.work)
        spent = Spent(self._limits)
        spent.add_inline(checked)
        request = _Request(self, checked, tenant, spent)
        with ExitStack() as shares:
            with self._counted(spent, tenant):
                # Before the share is taken: a slow host must not hold memory that others wait for.
                ready = await request.load()
                check_counts([one for one, _ in ready], self._limits)
                most = min(self._limits.max_tokens, sum(one.most_tokens for one, _ in ready))
                share = shares.enter_context(await self.memory.share(patch_memory(most, self.work.pixels)))
                pictures = await request.decode(ready)
                del ready
            share.shrink(patch_memory(spent.tokens, self.work.pixels))
            yield [Opened(one.source, found) for one, found in zip(checked, pictures, strict=True)]

    @contextmanager
    def _counted(self, spent: Spent, tenant: str) -> Iterator[None]:
        """Until the block ends, what it gets from elsewhere is held."""
        try:
            yield
        finally:
            self._held.give_back(spent.elsewhere, tenant)

    def estimated_tokens(self, sources: Sequence[Source]) -> int:
        """How many prompt tokens the sources will take, guessed in no time."""
        return estimated_tokens(sources, self.work) if sources else 0

    def settle(self, checked: Checked, files: Sequence[Loaded]) -> Checked:
        """What is to be done with a source whose files are here; raises as `checks.settle`."""
        settled = settle(checked, [file.head for file in files], self._limits, self.work)
        if len(files) == 1:
            [content], [file] = settled.contents, files
            check_size(settled.job, content.size if isinstance(content, Inline) else file.size, self._limits)
        return settled

    async def load(self, content: Content, tenant: str, spent: Spent) -> Loaded:
        """The bytes of one file, from wherever they are."""
        most = self._limits.max_bytes[content.kind]
        if isinstance(content, Inline):
            return Loaded(content.encoded(), base64=True, escaped=content.is_escaped)

        def spend(size: int) -> None:
            spent.add_bytes(size, content.kind, content.param)
            self._held.take(size, tenant)
            spent.elsewhere += size

        if isinstance(content, Remote):
            return Loaded((await self.remote.get(content, tenant, most, spend),), base64=False)
        data = await anyio.to_thread.run_sync(self._folders.read, content, most, abandon_on_cancel=True)
        spend(len(data))
        return Loaded((data,), base64=False)

    async def decode(self, job: Job, files: Sequence[Loaded], tenant: str) -> Pictures:
        """What the files of a job hold: from the cache, from a worker, or together with who wants the same now."""
        job = replace(job, files=tuple(File(file.size, file.base64, file.escaped) for file in files))
        data = [piece for file in files for piece in file.pieces]
        digest = await _where_it_fits(sum(map(len, data)), digest_of, job, data, tenant)
        found = self.cache.get(digest)
        if found is not None:
            return found

        async def decode() -> Pictures:
            pictures = await self._ask_a_worker(job, data, digest, tenant)
            self.cache.put(digest, pictures)
            return pictures

        # With the place in the request, since an error names it.
        return await self._decoding.run((digest, job.param), decode)

    async def _ask_a_worker(self, job: Job, data: Sequence[bytes], digest: str, tenant: str) -> Pictures:
        memory = await _where_it_fits(sum(map(len, data)), memory_with, data)
        try:
            with await self.decoding.share(decode_memory(job, data, self._worker_memory)):
                answer = await self._answer(job, memory, tenant)
        finally:
            os.close(memory)
        try:
            cuts = unpack_answer(answer.message)
            require_wanted(job, cuts, self.work)
            patches = sealed_array(answer.attached[0], sum(cut.patches.size for cut in cuts))
            return pictures_of(cuts, patches, digest)
        except (ValueError, IndexError) as error:
            raise InternalError("The server failed to decode this.", param=job.param) from error
        finally:
            answer.close()

    async def _answer(self, job: Job, memory: int, tenant: str) -> Answer:
        tries = 1
        while True:
            try:
                return await self.pool.run(pack_job(job), [memory], tenant)
            except WorkerDied:
                if tries < TRIES:
                    tries += 1
                    continue
                reason = "Decoding it breaks the decoder: the file is damaged, or made to do harm."
            except WorkerOverran:
                reason = f"Decoding it takes longer than {self.pool.seconds:g} seconds."
            raise invalid_media(KIND_OF[type(job)], reason, code="image_parse_error", param=job.param)


class _Request:
    """The sources of one request on their way."""

    def __init__(self, house: Preparer, checked: Sequence[Checked], tenant: str, spent: Spent) -> None:
        self._house = house
        self._checked = checked
        self._tenant = tenant
        self._spent = spent
        self._loading: SingleFlight[tuple[str, str], Loaded] = SingleFlight()
        self._loaded: dict[tuple[str, str], Loaded] = {}

    async def load(self) -> list[Ready]:
        """The files of every source; raises the first failure, alone."""
        return await _all(self._load_all, self._checked)

    async def decode(self, sources: Sequence[Ready]) -> list[Pictures]:
        """The pictures of every source; raises the first failure, alone."""
        return await _all(self._decode, sources)

    async def _load_all(self, checked: Checked) -> Ready:
        files = await _all(self._load, checked.contents)
        return self._house.settle(checked, files), files

    async def _decode(self, source: Ready) -> Pictures:
        checked, files = source
        pictures = await self._house.decode(checked.job, files, self._tenant)
        merge = self._house.work.pixels.merge
        self._spent.add_tokens(sum(picture_tokens(picture.grid_thw, merge) for picture in pictures))
        self._spent.add_pages(sum(picture.page is not None for picture in pictures), checked.job.param)
        return pictures

    async def _load(self, content: Content) -> Loaded:
        """One file; what a request names twice is got once."""
        if isinstance(content, Inline):
            return await self._house.load(content, self._tenant, self._spent)
        key = content.kind, content.url if isinstance(content, Remote) else content.path
        if key not in self._loaded:
            load = partial(self._house.load, content, self._tenant, self._spent)
            self._loaded[key] = await self._loading.run(key, load)
        return self._loaded[key]


async def _all(work: Callable[[Item], Awaitable[Result]], items: Sequence[Item]) -> list[Result]:
    """Work on all items at once; the first failure stops the rest and is raised alone."""
    if len(items) == 1:  # as most requests have
        return [await work(items[0])]
    results: dict[int, Result] = {}
    failures: list[Exception] = []

    async def one(number: int) -> None:
        try:
            results[number] = await work(items[number])
        except Exception as error:
            # Kept, not raised: a task group would wrap it, and failures of the same moment, in an ExceptionGroup.
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for number in range(len(items)):
            tasks.start_soon(one, number)
    if failures:
        raise failures[0]
    return [results[number] for number in range(len(items))]


async def _where_it_fits(size: int, work: Callable[..., Result], *arguments: object) -> Result:
    """Do short work here and long work in a thread; both kinds release the GIL for large data."""
    if size <= LARGE_BYTES:
        return work(*arguments)
    return await anyio.to_thread.run_sync(work, *arguments)


def _size(pictures: Pictures) -> int:
    return sum(picture.patches.nbytes for picture in pictures)
