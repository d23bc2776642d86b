"""Ten times as many requests as the server can answer: it answers as many as before, and refuses the others at once.

`overload` finds to how many callers the server gives most whole answers a second, and then offers ten times what they
get, whatever becomes of it. `adaptive` offers more large pictures than the engine can read to a
server that was told which time to first token is wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

from clients.bench.cpu import cpu_seconds
from clients.bench.model import CAPPED_PIXELS, FULL_PIXELS, make_model
from clients.bench.peers import MODEL_NAME, EngineArguments, running, vllm
from tests.drills.drill import Figure, Plan, at_least, at_most, exactly, percentile, told
from tests.drills.load_bodies import Template, mixed, picture_template
from tests.drills.load_client import Asked, Load, Probes, keep_asking, offer, probe, run
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
ROUNDS: Final = 4
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


@dataclass
class Drilled:
    """What a server did at its best and under overload, in turns: slow changes of the machine favour neither."""

    callers: int
    """With whom it is at its best."""
    at_best: list[Load] = field(default_factory=list)
    offered: list[Load] = field(default_factory=list)
    """Ten times as much, from the beginning."""
    flooded: list[Load] = field(default_factory=list)
    """The same once the house was full."""
    ready: list[Probes] = field(default_factory=list)
    metrics: list[Probes] = field(default_factory=list)
    front_cpu_s: float = 0.0

    @property
    def peak(self) -> float:
        """Whole answers a second at its best."""
        return _a_second(self.at_best, lambda one: one.whole)

    @property
    def goodput(self) -> float:
        """Whole answers a second under overload."""
        return _a_second(self.flooded, lambda one: one.whole)

    @property
    def sent(self) -> float:
        """Requests a second that did go out."""
        return _a_second(self.offered, lambda one: bool(one.sent or one.answered))

    @property
    def refused(self) -> list[Asked]:
        """Those that were told to try again later."""
        return [one for load in self.flooded for one in load.asked if one.status == 503]

    @property
    def unfinished(self) -> int:
        """Answers with status 200 that were not whole."""
        return sum(one.status == 200 and not one.whole for load in self.flooded for one in load.asked)

    @property
    def faults(self) -> list[Asked]:
        """What is neither an answer nor a refusal."""
        return [one for load in self.flooded for one in load.asked if one.status not in {200, 503}]

    def cores(self, cpu_s: float) -> float:
        """CPU seconds under overload as a number of cores."""
        return cpu_s / sum(load.seconds for load in self.offered)


def _a_second(loads: Sequence[Load], counts: Callable[[Asked], bool]) -> float:
    return sum(counts(one) for load in loads for one in load.asked) / sum(load.seconds for load in loads)


def overload(plan: Plan) -> Iterator[Figure]:
    """Ten times what the server can answer, for two minutes, and then the same for vLLM's own server."""
    templates = mixed()
    with serve(*flags(make_model(MODELS, CAPPED_PIXELS), CONTEXT), model=MODEL_NAME) as server:
        engines = _engines(server)
        drilled = drill(server.address, "/health/ready", server.process.pid, templates, plan)
        alive = engines == _engines(server) and server.reason() is None
    yield from _figures(drilled, plan, alive=alive)
    if not plan.short:
        yield from _peer(templates, plan)


def _figures(drilled: Drilled, plan: Plan, *, alive: bool) -> Iterator[Figure]:
    yield told("overload/peak", drilled.peak, "/s")
    yield told("overload/peak-callers", drilled.callers)
    yield told("overload/offered", drilled.sent / drilled.peak, "x peak")
    yield told("overload/goodput", drilled.goodput, "/s")
    yield at_least("overload/goodput-kept", drilled.goodput / drilled.peak, plan.mark(0.9, 0.3))
    yield told("overload/refused", _a_second(drilled.flooded, lambda one: one.status == 503), "/s")
    yield told("overload/refused-p50", _refused_ms(drilled, 0.5), "ms")
    yield at_most("overload/refused-p99", _refused_ms(drilled, 0.99), plan.mark(100, 5000), "ms")
    yield exactly("overload/other-errors", len(drilled.faults), 0)
    yield exactly("overload/unfinished-answers", drilled.unfinished, 0)
    yield exactly("overload/refusals-without-advice", sum(not one.advised for one in drilled.refused), 0)
    yield told("overload/metrics-p50", _probe_ms(drilled.metrics, 0.5), "ms")
    yield at_most("overload/metrics-p99", _probe_ms(drilled.metrics, 0.99), plan.mark(50, 5000), "ms")
    yield exactly("overload/metrics-failed", sum(one.wrong for one in drilled.metrics), 0)
    yield told("overload/ready-p99", _probe_ms(drilled.ready, 0.99), "ms")
    yield exactly("overload/not-ready", sum(one.wrong for one in drilled.ready), 0)
    yield exactly("overload/engine-alive", alive, 1)
    yield told("overload/front-end-cores", drilled.cores(drilled.front_cpu_s))
    yield told("overload/client-cores", drilled.cores(sum(load.client_cpu_s for load in drilled.offered)))


def _peer(templates: Sequence[Template], plan: Plan) -> Iterator[Figure]:
    """vLLM's own server, with room for as many requests as ours."""
    engine = EngineArguments(make_model(MODELS, CAPPED_PIXELS), CONTEXT, SEQUENCES)
    peer = vllm(engine).with_flags("--max-num-queued-reqs", str(HOUSE))
    with running(peer, END_WITHIN_S) as server:
        drilled = drill(server.address, "/health", server.process.pid, templates, plan)
    yield told("overload/vllm-peak", drilled.peak, "/s")
    yield told("overload/vllm-offered", drilled.sent / drilled.peak, "x peak")
    yield told("overload/vllm-goodput", drilled.goodput, "/s")
    yield told("overload/vllm-goodput-kept", drilled.goodput / drilled.peak)
    yield told("overload/vllm-refused", _a_second(drilled.flooded, lambda one: one.status == 503), "/s")
    yield told("overload/vllm-refused-p50", _refused_ms(drilled, 0.5), "ms")
    yield told("overload/vllm-refused-p99", _refused_ms(drilled, 0.99), "ms")
    yield told("overload/vllm-other-errors", len(drilled.faults))
    yield told("overload/vllm-refusals-without-advice", sum(not one.advised for one in drilled.refused))
    yield told("overload/vllm-metrics-p99", _probe_ms(drilled.metrics, 0.99), "ms")
    yield told("overload/vllm-ready-p99", _probe_ms(drilled.ready, 0.99), "ms")


def _refused_ms(drilled: Drilled, share: float) -> float:
    return 1e3 * percentile([one.refused_s for one in drilled.refused], share)


def _probe_ms(probes: Sequence[Probes], share: float) -> float:
    return 1e3 * percentile([seconds for one in probes for seconds in one.seconds], share)


def drill(address: str, ready_path: str, root: int, templates: Sequence[Template], plan: Plan) -> Drilled:
    """Find a server's peak and overload it, in turns; `root` is its first process."""
    numbers = itertools.count()
    run(keep_asking(address, templates, 8, 3.0, numbers))
    drilled = Drilled(find_peak(address, templates, plan, numbers))
    seconds = FILL_S + plan.size(30, 5)

    async def flood() -> tuple[Load, Probes, Probes]:
        return await asyncio.gather(
            offer(address, templates, TIMES * drilled.peak, seconds, numbers),
            probe(address, ready_path, seconds),
            probe(address, "/metrics", seconds),
        )

    def at_best() -> None:
        time.sleep(1)  # those who were cut off have been cleared away
        asked = run(keep_asking(address, templates, drilled.callers, _step_s(plan), numbers))
        drilled.at_best.append(asked.within(SETTLE_S))

    for _ in range(plan.size(ROUNDS, 1)):
        at_best()
        before = cpu_seconds(root)
        load, ready, metrics = run(flood())
        drilled.front_cpu_s += cpu_seconds(root) - before
        drilled.offered.append(load)
        drilled.flooded.append(load.within(FILL_S))
        drilled.ready.append(ready)
        drilled.metrics.append(metrics)
    at_best()
    return drilled


def find_peak(address: str, templates: Sequence[Template], plan: Plan, numbers: Iterator[int]) -> int:
    """The number of callers with whom the server gives most whole answers a second."""
    found: dict[int, float] = {}
    for callers in CALLERS_SHORT if plan.short else CALLERS:
        found[callers] = run(keep_asking(address, templates, callers, _step_s(plan), numbers)).within(SETTLE_S).goodput
    return max(found, key=lambda callers: found[callers])


def _step_s(plan: Plan) -> float:
    return SETTLE_S + plan.size(8, 4)


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
    yield at_most("adaptive/ttft-p90", percentile(first, 0.9), plan.mark(1.2, 5) * TARGET_S, "s")
    yield told("adaptive/goodput-kept", load.goodput / rate)
    yield exactly("adaptive/other-errors", sum(one.status not in {200, 503} for one in load.asked), 0)


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
