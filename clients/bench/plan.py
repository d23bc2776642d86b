"""Which servers are started in a round of the bench, in which order, and what each is given to do."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clients.bench import peers
from clients.bench.model import CAPPED_PIXELS, FULL_PIXELS, make_model
from clients.bench.peers import EngineArguments, Peer
from clients.bench.workloads import ALL, PAGES, Sample, Workload

BUILD = Path("build/bench")
WORKERS_FLAG = "--decode-workers"
WORKERS = "workers"
"""The name under which the bench of one, two and more decode workers is chosen."""
START, MEMORY = "start", "memory"
NAMES = (START, *(workload.name for workload in ALL), WORKERS, MEMORY)
"""What can be chosen."""
CONTEXTS = {CAPPED_PIXELS: 4096, FULL_PIXELS: 16_384}
"""Tokens of context by the model's limit of pixels."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the person at the terminal chose."""

    only: frozenset[str] = frozenset(NAMES)
    quick: bool = False
    rust: Path | None = None
    """vLLM's front end in Rust."""
    checkout: Path | None = None
    """Another checkout of the project, whose server is measured in place of this one's."""


@dataclass(frozen=True, slots=True)
class Visit:
    """One server, started, given some work and ended. `suffix` tells its samples from those of another such visit."""

    peer: Peer
    workloads: tuple[Workload, ...]
    suffix: str = ""
    timed: bool = False
    """Whether its start and its memory count: a server with the usual flags that gets all the work."""


@dataclass(slots=True)
class Measured:
    """What one contender did in one round."""

    samples: dict[str, Sample] = field(default_factory=dict)
    """By the workload's name, with the visit's suffix."""
    ready_s: float | None = None
    memory_mib: float | None = None


def visits(options: Options) -> list[Visit]:
    """The visits of one round, ours first; every second round goes through them from the end."""
    capped = _chosen(options, CAPPED_PIXELS)
    plain = tuple(workload for workload in capped if not workload.same)
    cached = tuple(workload for workload in capped if workload.same)
    engine = _engine(CAPPED_PIXELS)
    found: list[Visit] = []
    if capped or options.only & {START, MEMORY, WORKERS}:
        found.append(Visit(peers.ours(engine, options.checkout), capped, timed=True))
        # What is to be compared with any number of workers is what the peer does with its one thread.
        given = plain if WORKERS not in options.only or PAGES.name in options.only else (*plain, _sized(PAGES, options))
        found.append(Visit(peers.vllm(engine), given, timed=True))
        if options.rust:
            found.append(Visit(peers.rust(engine, options.rust), capped, timed=True))
    if cached:
        found.append(Visit(peers.vllm(engine, cache=True), cached))
    if whole := _chosen(options, FULL_PIXELS):
        engine = _engine(FULL_PIXELS)
        found.append(Visit(peers.ours(engine, options.checkout), whole))
        found.append(Visit(peers.vllm(engine), whole))
        if options.rust:
            found.append(Visit(peers.rust(engine, options.rust), whole))
    if WORKERS in options.only:
        found.extend(_with_workers(options))
    return found


def _with_workers(options: Options) -> Iterator[Visit]:
    for workers in worker_counts(len(os.sched_getaffinity(0))):
        peer = peers.ours(_engine(CAPPED_PIXELS), options.checkout).with_flags(WORKERS_FLAG, str(workers))
        yield Visit(peer, (_sized(PAGES, options),), suffix=workers_suffix(workers))


def worker_counts(cores: int) -> list[int]:
    """1, 2, 4 and so on to the number of cores, and that number itself."""
    return sorted({min(1 << power, cores) for power in range(cores.bit_length() + 1)})


def workers_suffix(workers: int) -> str:
    """What distinguishes samples of a server with so many decode workers."""
    return f"@{workers}"


def chosen_workloads(found: Sequence[Visit]) -> list[Workload]:
    """Every workload of the visits, once."""
    return list({workload.name: workload for visit in found for workload in visit.workloads}.values())


def _chosen(options: Options, max_pixels: int) -> tuple[Workload, ...]:
    chosen = (workload for workload in ALL if workload.name in options.only and workload.max_pixels == max_pixels)
    return tuple(_sized(workload, options) for workload in chosen)


def _sized(workload: Workload, options: Options) -> Workload:
    return workload.quicker() if options.quick else workload


def _engine(max_pixels: int) -> EngineArguments:
    return EngineArguments(make_model(BUILD, max_pixels), max_model_len=CONTEXTS[max_pixels])


def in_order(found: Sequence[Visit], round_number: int) -> Sequence[Visit]:
    """A B, B A, A B and so on: what changes slowly on the machine favours neither."""
    return found if round_number % 2 else found[::-1]
