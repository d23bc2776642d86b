"""Drills behind real balancers: a rolling restart, a replica that dies, and pictures that find their replica again.

Three server processes with the scripted engine, and before them nginx, HAProxy and Envoy with the configurations of
docker/balancers/, as far as they are installed. In the short form all balancers stand before the same replicas at once.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from tests.drills.clients import THUMBNAIL, Load, Pictures, Reply, ask_in_turn, load
from tests.drills.drill import Figure, Plan, at_least, exactly, percentile, told
from tests.drills.fronts import REPLICAS, Front, Kind, installed, open_front
from tests.drills.replicas import Replica, open_replicas
from tests.drills.shared import Shared

SETTLE_S: Final = 2.5
"""For balancers to see that a replica is ready, at a check each second: what an orchestrator waits before the next."""
PAUSE_S: Final = 1.0
"""Between a client's requests, while a server starts on the same two cores."""
HURRY_S: Final = 1.0
"""How long clients do without it before a replica is killed, and after."""
HITS: Final = 'ain_media_cache_hits_total{cache="prepared"}'
MISSES: Final = 'ain_media_cache_misses_total{cache="prepared"}'
SHOWN: Final = 5
"""So many failures are shown of those that a balancer's clients had."""


def rolling_restart(plan: Plan) -> Iterator[Figure]:
    """Restart all replicas one after the other under load; no client notices."""
    statuses: list[int] = []
    for kinds in _groups(plan):
        with _house(plan, kinds) as (replicas, fronts):
            with _load(plan, fronts) as seen:
                time.sleep(SETTLE_S)
                statuses += [_restart(replica, seen) for replica in replicas[: plan.size(REPLICAS, 2)]]
            yield from _figures("rolling", fronts, seen)
    yield exactly("rolling/drains-with-another-status-than-0", len(statuses) - statuses.count(0), 0)


def killed_replica(plan: Plan) -> Iterator[Figure]:
    """Kill a replica under load, or each in its turn; only a reply that had already begun may be cut off."""
    under_way: list[int] = []
    for kinds in _groups(plan):
        with _house(plan, kinds) as (replicas, fronts):
            with _load(plan, fronts) as seen:
                time.sleep(SETTLE_S)
                for replica in replicas[: plan.size(REPLICAS, 1)]:
                    with _hurry(seen):
                        time.sleep(HURRY_S)
                        under_way.append(seen.under_way)
                        replica.kill()
                        time.sleep(HURRY_S)
                    _start(replica)
            yield from _figures("replica", fronts, seen)
    yield told("replica/under-way-at-a-kill", min(under_way))


def image_affinity(plan: Plan) -> Iterator[Figure]:
    """Ask about the same pictures again and again: each is prepared by one replica alone."""
    pictures, rounds = plan.size(24, 8), plan.size(20, 12)
    files = Pictures(THUMBNAIL)
    numbers = iter(range(1_000_000))
    with _house(plan, installed()) as (replicas, fronts):
        for front in fronts:
            with_key = [files.numbered(next(numbers)) for _ in range(pictures)]
            without = [files.numbered(next(numbers)) for _ in range(pictures)]
            before = [replica.counted(MISSES) for replica in replicas]
            hits, misses = _asked(replicas, front, _shuffled(with_key, rounds), with_key=True)
            used = sum(replica.counted(MISSES) > first for replica, first in zip(replicas, before, strict=True))
            yield exactly(f"affinity/{front.name}/replicas-a-picture", misses / pictures, 1)
            yield at_least(f"affinity/{front.name}/replicas-used", used, 2)
            yield at_least(f"affinity/{front.name}/cache-hits", 100 * hits / (hits + misses), 90, "%")
            hits, misses = _asked(replicas, front, _shuffled(without, rounds), with_key=False)
            yield told(f"affinity/{front.name}/cache-hits-without-the-header", 100 * hits / (hits + misses), "%")


# ---- What they share


def _groups(plan: Plan) -> list[list[Kind]]:
    """Which balancers stand before the same replicas: all together, or each alone with all of the load."""
    kinds = installed()
    return [kinds] if plan.short else [[kind] for kind in kinds]


def shared_replicas() -> list[Replica]:
    """Those that all short drills share."""
    return _shared_replicas.get()


_shared_replicas = Shared(
    lambda: open_replicas(REPLICAS), lambda replicas: all(one.server.process.poll() is None for one in replicas)
)


@contextlib.contextmanager
def _house(plan: Plan, kinds: Sequence[Kind]) -> Iterator[tuple[list[Replica], list[Front]]]:
    with contextlib.ExitStack() as stack:
        replicas = _shared_replicas.get() if plan.short else stack.enter_context(open_replicas(REPLICAS))
        ports = [replica.port for replica in replicas]
        yield replicas, [stack.enter_context(open_front(kind, ports)) for kind in kinds]


def _load(plan: Plan, fronts: Sequence[Front]) -> contextlib.AbstractContextManager[Load]:
    """About as much as two cores do beside three servers that start: 12 clients, or 4 for each balancer."""
    return load(fronts, plan.size(12, 4), PAUSE_S)


@contextlib.contextmanager
def _hurry(seen: Load) -> Iterator[None]:
    """Clients without a pause, so that every moment of what happens now meets requests under way."""
    seen.pause_s = 0.0
    try:
        yield
    finally:
        seen.pause_s = PAUSE_S


def _restart(replica: Replica, seen: Load) -> int:
    with _hurry(seen):
        status = replica.stop()
    _start(replica)
    return status


def _start(replica: Replica) -> None:
    replica.start()
    replica.server.await_ready()
    time.sleep(SETTLE_S)


def _figures(drill: str, fronts: Sequence[Front], seen: Load) -> Iterator[Figure]:
    for front in fronts:
        replies = seen.of(front)
        failed = [reply for reply in replies if reply.failure]
        _show(front, failed)
        cut = sum(reply.streamed and reply.begun for reply in failed)
        name = f"{drill}/{front.name}"
        yield told(f"{name}/requests", len(replies))
        yield told(f"{name}/sent-again", front.sent_again())
        yield told(f"{name}/slowest", percentile([reply.seconds for reply in replies], 1.0), "s")
        if drill == "replica":
            yield told(f"{name}/cut-in-mid-stream", cut)
            failed = [reply for reply in failed if not (reply.streamed and reply.begun)]
        yield exactly(f"{name}/failed", len(failed) if replies else -1, 0)


def _asked(replicas: Sequence[Replica], front: Front, files: Sequence[bytes], *, with_key: bool) -> tuple[float, float]:
    """Ask about these pictures; by how much the replicas' hits and misses grew together."""
    before = _caches(replicas)
    failed = [reply for reply in ask_in_turn(front, files, with_key=with_key) if reply.failure]
    _show(front, failed)
    if failed:
        raise AssertionError(f"{len(failed)} requests through {front.name} failed")
    hits, misses = _caches(replicas)
    return hits - before[0], misses - before[1]


def _shuffled(files: Sequence[bytes], rounds: int) -> list[bytes]:
    """All of them in each round, in another order: one replica after the other would find the same by itself."""
    shuffle = Random(rounds)
    return [file for _ in range(rounds) for file in shuffle.sample(files, len(files))]


def _caches(replicas: Sequence[Replica]) -> tuple[float, float]:
    return sum(one.counted(HITS) for one in replicas), sum(one.counted(MISSES) for one in replicas)


def _show(front: Front, failed: Sequence[Reply]) -> None:
    for reply in failed[:SHOWN]:
        begun = "after its reply had begun" if reply.begun else "before its reply"
        print(f"{front.name}: failed {begun}, {reply.seconds:.2f} s: {reply.failure}", file=sys.stderr)
