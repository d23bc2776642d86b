"""The pool of decode workers: real processes that work, hang and die."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from server.media.workers import pool as workers_pool
from server.media.workers.channel import memory_with, sealed_array
from server.media.workers.pool import Answer, WorkerDied, WorkerOverran, WorkerPool
from tests.unit.media import told_workers
from tests.waiting import PATIENCE_S


@asynccontextmanager
async def pool(
    size: int = 1, seconds: float = 30.0, main: Callable[..., None] = told_workers.obedient
) -> AsyncIterator[WorkerPool]:
    made = WorkerPool(main, size=size, seconds=seconds)
    await made.start()
    try:
        yield made
    finally:
        await made.aclose()


async def say(made: WorkerPool, message: str) -> str:
    answer = await made.run(message.encode(), [])
    answer.close()
    return answer.message.decode()


def reading(made: WorkerPool, name: str, reason: str | None = None) -> float:
    labels = (("reason", reason),) if reason else ()
    return next(r.value for r in made.readings() if r.name == name and r.labels == labels)


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii")
    except (FileNotFoundError, ProcessLookupError):  # the latter where it ends while it is read
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  the pool tells nobody
            await asyncio.sleep(0.01)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clock a job may take as long as it likes."""
    monkeypatch.setattr(workers_pool, "CLOCK_FACTOR", 1000.0)


async def test_a_job_gets_its_files_and_answers_with_memory() -> None:
    async with pool() as made:
        file = memory_with([b"abc", b"def"])
        answer: Answer = await made.run(b"echo hello", [file])
        os.close(file)
        assert answer.message == b"hello"
        assert bytes(sealed_array(answer.attached[0], 6)) == b"abcdef"
        answer.close()
        assert answer.attached == []


async def test_workers_work_side_by_side() -> None:
    async with pool(size=2) as made:
        both = asyncio.gather(say(made, "slow 0.2"), say(made, "slow 0.2"))
        await until(lambda: reading(made, "ain_media_workers_busy") == 2)
        assert await both == ["done", "done"]
        assert reading(made, "ain_media_workers_busy") == 0
        assert reading(made, "ain_media_jobs") == 2


async def test_jobs_wait_for_a_worker_in_their_order() -> None:
    async with pool() as made:
        order: list[int] = []

        async def job(number: int) -> None:
            await say(made, "slow 0.02")
            order.append(number)

        jobs = [asyncio.create_task(job(number)) for number in range(5)]
        await until(lambda: reading(made, "ain_media_jobs_waiting") > 0)
        await asyncio.gather(*jobs)
        assert order == [0, 1, 2, 3, 4]


async def test_tenants_take_turns() -> None:
    """One with many jobs does not keep another waiting for all of them."""
    async with pool() as made:
        order: list[str] = []

        async def job(tenant: str) -> None:
            (await made.run(b"slow 0.02", [], tenant)).close()
            order.append(tenant)

        jobs = [asyncio.create_task(job(tenant)) for tenant in ("a", "a", "a", "a", "b", "c", "b")]
        await until(lambda: reading(made, "ain_media_jobs_waiting") == 6)
        await asyncio.gather(*jobs)
        assert order == ["a", "a", "b", "c", "a", "b", "a"]


@pytest.mark.parametrize("way", ["die", "kill"])
async def test_a_worker_that_dies_is_replaced(way: str) -> None:
    async with pool() as made:
        first = int(await say(made, "pid"))
        with pytest.raises(WorkerDied):
            await say(made, way)
        second = int(await say(made, "pid"))
        assert first != second
        assert not is_running(first)
        assert reading(made, "ain_media_workers_lost", "died") == 1


async def test_a_worker_that_dies_takes_no_other_job_with_it() -> None:
    async with pool(size=2) as made:
        other = asyncio.create_task(say(made, "slow 0.5"))
        await until(lambda: reading(made, "ain_media_workers_busy") == 1)
        with pytest.raises(WorkerDied):
            await say(made, "die")
        assert await other == "done"


async def test_an_idle_worker_that_dies_is_replaced() -> None:
    async with pool() as made:
        first = int(await say(made, "pid"))
        os.kill(first, signal.SIGKILL)
        await until(lambda: reading(made, "ain_media_workers_lost", "died") == 1)
        assert int(await say(made, "pid")) != first


async def test_a_worker_that_hangs_is_ended_and_replaced() -> None:
    async with pool(seconds=1) as made:
        first = int(await say(made, "pid"))
        with pytest.raises(WorkerOverran):
            await say(made, "hang")
        await until(lambda: not is_running(first))
        assert int(await say(made, "pid")) != first
        assert reading(made, "ain_media_workers_lost", "overran") == 1


async def test_a_worker_is_ended_for_its_cpu_time_before_its_time_by_the_clock(clock: None) -> None:
    async with pool(seconds=0.5) as made:
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(WorkerOverran):
                await say(made, "burn")
        assert reading(made, "ain_media_workers_lost", "overran") == 1


async def test_a_job_on_a_crowded_machine_may_take_longer_than_its_cpu_time(clock: None) -> None:
    async with pool(seconds=0.4) as made:
        assert await say(made, "slow 0.8") == "done"
        assert reading(made, "ain_media_workers_lost", "overran") == 0


async def test_a_stopped_worker_is_ended_too() -> None:
    async with pool(seconds=1) as made:
        first = int(await say(made, "pid"))
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(WorkerOverran):
            await say(made, "pid")
        await until(lambda: not is_running(first))


async def test_a_job_whose_caller_leaves_is_finished_and_its_worker_kept() -> None:
    async with pool() as made:
        first = await say(made, "pid")
        job = asyncio.create_task(say(made, "slow 0.2"))
        await until(lambda: reading(made, "ain_media_workers_busy") == 1)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert await say(made, "pid") == first


async def test_a_job_whose_caller_leaves_while_it_waits_is_never_begun() -> None:
    async with pool() as made:
        busy = asyncio.create_task(say(made, "slow 0.3"))
        await until(lambda: reading(made, "ain_media_workers_busy") == 1)
        waiting = asyncio.create_task(say(made, "slow 0"))
        await until(lambda: reading(made, "ain_media_jobs_waiting") == 1)
        waiting.cancel()
        await busy
        assert reading(made, "ain_media_jobs") == 1
        assert await say(made, "echo") == "-"


async def test_the_answer_to_a_caller_who_left_leaks_no_descriptor() -> None:
    async with pool() as made:
        await say(made, "pid")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            file = memory_with([b"x"])
            job = asyncio.create_task(made.run(b"echo", [file]))
            await asyncio.sleep(0)
            job.cancel()
            await asyncio.wait([job])
            os.close(file)
            await say(made, "pid")
        assert len(os.listdir("/proc/self/fd")) == before


async def test_closing_ends_all_workers_whatever_they_do() -> None:
    made = WorkerPool(told_workers.obedient, size=2, seconds=30)
    await made.start()
    pid = int(await say(made, "pid"))
    job = asyncio.create_task(say(made, "hang"))
    await until(lambda: reading(made, "ain_media_workers_busy") == 1)
    await made.aclose()
    with pytest.raises(WorkerDied):
        await job
    await until(lambda: not is_running(pid))


async def test_a_worker_that_does_not_start_is_tried_again(tmp_path: Path) -> None:
    """The flag file makes the second try succeed."""
    async with pool(main=told_workers.Unwilling(f"{tmp_path}/flag")) as made:
        assert await say(made, "echo ok") == "ok"
