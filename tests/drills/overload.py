"""Ten times as many requests as the server can answer: it answers as many as before, and refuses the others at once.

`overload` finds the most whole answers a second that the server gives, to as many callers as suit it best, and then
offers ten times that rate, whatever becomes of it. `adaptive` offers more large pictures than the engine can read to a
server that was told which time to first token is wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from clients.bench.cpu import cpu_seconds
from clients.bench.model import CAPPED_PIXELS, FULL_PIXELS, make_model
from clients.bench.peers import MODEL_NAME, EngineArguments, running, vllm
from tests.drills.drill import Figure, Plan, at_least, at_most, exactly, percentile, told
from tests.drills.load_bodies import Template, mixed, picture_template
from tests.drills.load_client import Load, Probes, keep_asking, offer, probe, run
from tests.serving import Server, serve

MODELS: Final = Path("build/bench")
CONTEXT: Final = 4096
FULL_CONTEXT: Final = 16_384
SEQUENCES: Final = 64
HOUSE: Final = 256
"""Requests that either server holds at once; our own default."""
TIMES: Final = 10
CALLERS: Final = (32, 64, 96, 128, 192)
CALLERS_SHORT: Final = (96,)
SETTLE_S: Final = 1.0
"""Of each step of the search for the peak."""
FILL_S: Final = 4.0
"""Until the house is full, and what is answered was admitted under overload."""
END_WITHIN_S: Final = 240.0

TARGET_S: Final = 2.0
ADAPTED_S: Final = 12.0
"""After so long the limit has found its place."""
TOO_MANY: Final = 2.5
"""So many times as many large pictures as the server can read."""
LARGE_CALLERS: Final = 6


@dataclass(frozen=True, slots=True)
class Drilled:
    """What a server did at its best and under overload."""

    peak: float
    callers: int
    load: Load
    ready: Probes
    metrics: Probes
    front_cpu_s: float
    after: float
    """Whole answers a second afterwards, with as many callers as at the peak."""

    @property
    def kept(self) -> float:
        """The part of the peak that is left."""
        return self.load.goodput / self.peak

    @property
    def refused_s(self) -> list[float]:
        """How long refusals took."""
        return [one.refused_s for one in self.load.with_status(503)]


def overload(plan: Plan) -> Iterator[Figure]:
    """Ten times what the server can answer, for two minutes, and then the same for vLLM's own server."""
    templates = mixed()
    with serve(*flags(make_model(MODELS, CAPPED_PIXELS), CONTEXT), model=MODEL_NAME) as server:
        engines = _engines(server)
        drilled = drill(server.address, "/health/ready", server.process.pid, templates, plan)
        alive = engines == _engines(server) and server.reason() is None
    yield from _figures(drilled, alive=alive)
    if not plan.short:
        yield from _peer(templates, plan)


def _figures(drilled: Drilled, *, alive: bool) -> Iterator[Figure]:
    load = drilled.load
    refused = load.with_status(503)
    answers = load.with_status(200)
    yield told("overload/peak", drilled.peak, "/s")
    yield told("overload/peak-callers", drilled.callers)
    yield told("overload/offered", _offered(load) / drilled.peak, "x peak")
    yield told("overload/goodput", load.goodput, "/s")
    yield at_least("overload/goodput-kept", drilled.kept, 0.9)
    yield told("overload/goodput-after", drilled.after, "/s")
    yield told("overload/refused", len(refused) / load.seconds, "/s")
    yield told("overload/refused-p50", 1e3 * percentile(drilled.refused_s, 0.5), "ms")
    yield at_most("overload/refused-p99", 1e3 * percentile(drilled.refused_s, 0.99), 100, "ms")
    yield exactly("overload/other-errors", len(_faults(load)), 0)
    yield exactly("overload/unfinished-answers", sum(not one.whole for one in answers), 0)
    yield exactly("overload/refusals-without-advice", sum(not one.advised for one in refused), 0)
    yield at_most("overload/metrics-p99", 1e3 * percentile(drilled.metrics.seconds, 0.99), 50, "ms")
    yield exactly("overload/metrics-failed", drilled.metrics.wrong, 0)
    yield told("overload/ready-p99", 1e3 * percentile(drilled.ready.seconds, 0.99), "ms")
    yield exactly("overload/not-ready", drilled.ready.wrong, 0)
    yield exactly("overload/engine-alive", alive, 1)
    yield told("overload/front-end-cores", drilled.front_cpu_s / load.seconds)
    yield told("overload/client-cores", load.client_cpu_s / load.seconds)


def _peer(templates: Sequence[Template], plan: Plan) -> Iterator[Figure]:
    """vLLM's own server, with room for as many requests as ours."""
    engine = EngineArguments(make_model(MODELS, CAPPED_PIXELS), CONTEXT, SEQUENCES)
    peer = vllm(engine).with_flags("--max-num-queued-reqs", str(HOUSE))
    with running(peer, END_WITHIN_S) as server:
        drilled = drill(server.address, "/health", server.process.pid, templates, plan)
    load = drilled.load
    refused = load.with_status(503)
    yield told("overload/vllm-peak", drilled.peak, "/s")
    yield told("overload/vllm-offered", _offered(load) / drilled.peak, "x peak")
    yield told("overload/vllm-goodput", load.goodput, "/s")
    yield told("overload/vllm-goodput-kept", drilled.kept)
    yield told("overload/vllm-refused", len(refused) / load.seconds, "/s")
    yield told("overload/vllm-refused-p50", 1e3 * percentile(drilled.refused_s, 0.5), "ms")
    yield told("overload/vllm-refused-p99", 1e3 * percentile(drilled.refused_s, 0.99), "ms")
    yield told("overload/vllm-other-errors", len(_faults(load)))
    yield told("overload/vllm-refusals-without-advice", sum(not one.advised for one in refused))
    yield told("overload/vllm-metrics-p99", 1e3 * percentile(drilled.metrics.seconds, 0.99), "ms")
    yield told("overload/vllm-ready-p99", 1e3 * percentile(drilled.ready.seconds, 0.99), "ms")


def drill(address: str, ready_path: str, root: int, templates: Sequence[Template], plan: Plan) -> Drilled:
    """Find a server's peak and overload it; `root` is its first process."""
    numbers = itertools.count()
    run(keep_asking(address, templates, 8, 3.0, numbers))
    callers, peak = find_peak(address, templates, plan, numbers)
    seconds = FILL_S + plan.size(120, 10)

    async def work() -> tuple[Load, Probes, Probes]:
        return await asyncio.gather(
            offer(address, templates, TIMES * peak, seconds, numbers),
            probe(address, ready_path, seconds),
            probe(address, "/metrics", seconds),
        )

    before = cpu_seconds(root)
    load, ready, metrics = run(work())
    front = cpu_seconds(root) - before
    time.sleep(1)  # those who were cut off have been cleared away
    after = run(keep_asking(address, templates, callers, _step_s(plan), numbers)).within(SETTLE_S)
    return Drilled(peak, callers, load.within(FILL_S), ready, metrics, front, after.goodput)


def find_peak(address: str, templates: Sequence[Template], plan: Plan, numbers: Iterator[int]) -> tuple[int, float]:
    """The number of callers with whom the server gives most whole answers a second, and how many that are."""
    found: dict[int, float] = {}
    for callers in CALLERS_SHORT if plan.short else CALLERS:
        found[callers] = run(keep_asking(address, templates, callers, _step_s(plan), numbers)).within(SETTLE_S).goodput
    best = max(found, key=lambda callers: found[callers])
    return best, found[best]


def _step_s(plan: Plan) -> float:
    return SETTLE_S + plan.size(8, 4)


def _offered(load: Load) -> float:
    """Requests a second whose fate is known; those that were still under way at the end are not counted."""
    return len(load.asked) / load.seconds


def _faults(load: Load) -> list[str]:
    """What is neither an answer nor a refusal."""
    others = (one for one in load.asked if one.status not in {200, 503})
    return [f"{one.kind}: {one.status} {one.body[:200]!r}" for one in others]


def flags(model: Path, context: int) -> tuple[str, ...]:
    """What our server is started with, as `EngineArguments` has it for others."""
    lengths = ("--max-model-len", str(context), "--max-num-seqs", str(SEQUENCES))
    return ("--model", str(model), "--device", "cpu", "--kv-cache-gib", "2", "--max-requests", str(HOUSE), *lengths)


def _engines(server: Server) -> set[psutil.Process]:
    return set(server.named("EngineCore"))


# ---- With a time to first token in mind


def adaptive(plan: Plan) -> Iterator[Figure]:
    """Two and a half times as many large pictures as can be read, with and without a target.

    The time to first token is the client's: from when the request was due.
    """
    templates = [picture_template("1080p", seed, 8, stream=True) for seed in range(24)]
    with _large() as server:
        rate = _read_at_most(server.address, templates)
        without = _flooded(server.address, templates, TOO_MANY * rate, plan.size(30, 4))
    with _large("--ttft-target-s", f"{TARGET_S:g}") as server:
        load = _flooded(server.address, templates, TOO_MANY * rate, plan.size(60, 8))
    first = _first_s(load)
    yield told("adaptive/offered", TOO_MANY * rate, "/s")
    yield told("adaptive/ttft-p90-without", percentile(_first_s(without), 0.9), "s")
    yield told("adaptive/ttft-p50", percentile(first, 0.5), "s")
    yield at_most("adaptive/ttft-p90", percentile(first, 0.9), 1.2 * TARGET_S, "s")
    yield told("adaptive/goodput-kept", load.goodput / rate)
    yield exactly("adaptive/other-errors", len(_faults(load)), 0)


@contextlib.contextmanager
def _large(*more: str) -> Iterator[Server]:
    """A server whose model takes pictures as large as they come."""
    with serve(*flags(make_model(MODELS, FULL_PIXELS), FULL_CONTEXT), *more, model=MODEL_NAME) as server:
        yield server


def _read_at_most(address: str, templates: Sequence[Template]) -> float:
    """How many large pictures a second the server can read."""
    load = run(keep_asking(address, templates, LARGE_CALLERS, SETTLE_S + 5, itertools.count()))
    return load.within(SETTLE_S).goodput


def _flooded(address: str, templates: Sequence[Template], rate: float, seconds: float) -> Load:
    numbers = itertools.count(1 << 32)
    return run(offer(address, templates, rate, ADAPTED_S + seconds, numbers)).within(ADAPTED_S)


def _first_s(load: Load) -> list[float]:
    return [one.first_s for one in load.asked if one.whole]
