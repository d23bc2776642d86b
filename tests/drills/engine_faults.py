"""Drills in which the engine fails: it is killed, it hangs, and a request kills it.

What must hold every time: no client hangs. A stream that had begun ends with an error frame; all else is answered once
the engine is back, or told at once to come again.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tests.drills.asking import (
    CUT,
    REFUSED,
    WHOLE,
    Crowd,
    Exchange,
    about_picture,
    await_begun,
    long_prompt,
    new_numbers,
    none_but,
    outcomes,
    request,
    seconds_until,
    wait,
    words,
)
from tests.drills.drill import Figure, Plan, at_least, at_most, exactly, told
from tests.drills.house import POISON_SEED, House, open_house
from tests.serving import Server, runs

WITHIN_S: Final = 120.0
"""Every client has its answer by then, or hangs."""
TOLD_WITHIN_S: Final = 2.0
"""Who cannot be answered is told so."""
AGAIN_S: Final = 10.0
"""On top of a cold start: by then an engine that died serves again."""
HUNG_WITHIN_S: Final = 15.0
HUNG_AGAIN_S: Final = 60.0
JUST_BEFORE_S: Final = 0.5
"""What an engine said before its death may reach a client so long after it."""
ENDED_WITHIN_S: Final = 10.0
WAITERS: Final = 24
"""Of the crowd, those that are in the middle of their answers; the rest is in its prefill."""
PREFILL: Final = 8
NOT_GROWN: Final = 12
"""Descriptors that may be open besides, however often the engine has died: those of the one before, which Python frees
with the next, and of connections that are just closing."""


def killed_engine(plan: Plan) -> Iterator[Figure]:
    """End the engine's core with SIGKILL under 32 requests; also where the server must end with it."""
    with open_house(plan) as house:
        yield told("kill/cold-start", house.cold_start_s, "s")
        _run_through(house)
        before, most_files = house.descriptors(), 0
        kill = Fault(_kill, TOLD_WITHIN_S, house.cold_start_s + AGAIN_S)
        for number in range(plan.size(3, 1)):
            files = _shared_files(house.server)
            yield from _figures_of_fault(f"kill/{number + 1}", house, kill, plan)
            house.probe.await_idle()
            left = len(files & _all_shared_files() - _shared_files(house.server))
            most_files = max(most_files, left)
        yield exactly("kill/shared-memory-left", most_files, 0, "files")
        yield at_most("kill/descriptors-more", house.descriptors() - before, NOT_GROWN)
    if not plan.short:  # tests/e2e/test_process.py has one, without the crowd
        yield from _fail_fast(plan)


def hung_engine(plan: Plan) -> Iterator[Figure]:
    """Stop the engine's processes with SIGSTOP; under load, and when nothing is asked of it."""
    ways: dict[str, Callable[[Server], list[psutil.Process]]] = {"core": _stop_core}
    if not plan.short:
        ways["worker"] = _stop_worker
    for name, stop in ways.items():
        with open_house(plan) as house:
            hang = Fault(stop, HUNG_WITHIN_S, house.cold_start_s + HUNG_AGAIN_S)
            _run_through(house)
            yield from _figures_of_fault(f"hang/{name}", house, hang, plan)
            house.probe.await_idle()
            if not plan.short:
                yield from _hung_when_idle(f"hang/{name}-idle", house, hang)


def poisonous_request(plan: Plan) -> Iterator[Figure]:
    """Send a request that kills the engine in its prefill, among 12 that do no harm; send it again once it is known."""
    with open_house(plan) as house:
        restarts = _restarts(house)
        whole = house.crowd.ask_all(
            [words(number, stream=False, max_tokens=plan.size(600, 250)) for number in new_numbers(6)]
        )
        seconds_until(lambda: house.probe.metrics()["vllm:num_requests_running"] >= len(whole), 10)
        poison = house.crowd.ask(_poison())
        time.sleep(0.15)  # it takes longer to die
        streamed = house.crowd.ask_all([words(number, stream=True, max_tokens=100) for number in new_numbers(6)])
        begun_before = sum(exchange.has_text for exchange in streamed)
        wait([*whole, *streamed, poison], WITHIN_S)
        yield exactly("poison/streams-begun-before", begun_before, 0)
        yield exactly("poison/status", poison.status, 422)
        yield exactly("poison/named", poison.status == 422 and poison.error_code == "request_crashes_engine", 1)
        yield at_most("poison/restarts", _restarts(house) - restarts, 2)
        yield at_least("poison/restarts-at-least", _restarts(house) - restarts, 1)
        yield none_but("poison/innocents-not-answered", [*whole, *streamed], WHOLE)
        yield told("poison/slowest-innocent", max(one.ended - one.asked for one in [*whole, *streamed]), "s")
        yield from _sent_once_more(house)


# ---- kill and hang


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to the engine, and how soon the server must show it and have mended it."""

    strike: Callable[[Server], list[psutil.Process]]
    """Does it; the engine's processes, which must all be gone thereafter."""
    not_ready_s: float
    again_s: float


def _figures_of_fault(name: str, house: House, fault: Fault, plan: Plan) -> Iterator[Figure]:
    """Strike the engine in the middle of its work."""
    replayed = house.probe.metrics()["ain_requests_replayed_total"]
    exchanges = _asked_by_all(house.crowd, plan)
    yield told(f"{name}/streams-in-prefill", sum(math.isinf(one.begun) for one in exchanges if one.streamed))
    struck, at = fault.strike(house.server), time.monotonic()
    yield from _figures_of_return(name, house, fault, at)
    wait(exchanges, WITHIN_S)
    yield from _figures_of_replies(name, exchanges, at)
    yield told(f"{name}/run-again", house.probe.metrics()["ain_requests_replayed_total"] - replayed)
    yield exactly(f"{name}/processes-left", sum(map(runs, struck)), 0)


def _figures_of_return(name: str, house: House, fault: Fault, at: float) -> Iterator[Figure]:
    unready = seconds_until(lambda: not house.probe.is_ready(), fault.not_ready_s * 2)
    yield at_most(f"{name}/not-ready-within", unready, fault.not_ready_s, "s")
    seconds_until(house.probe.is_ready, fault.again_s)
    first = house.crowd.answer(words(new_numbers(1)[0], stream=False, max_tokens=4))
    again = first.ended - at if first.outcome == WHOLE else math.inf
    yield at_most(f"{name}/serves-again-within", again, fault.again_s, "s")


def _figures_of_replies(name: str, exchanges: Sequence[Exchange], at: float) -> Iterator[Figure]:
    begun = [one for one in exchanges if one.streamed and one.begun < at + JUST_BEFORE_S]
    others = [one for one in exchanges if one not in begun]
    refused = [one for one in others if one.outcome == REFUSED]
    yield exactly(f"{name}/clients-hanging", sum(not one.over.is_set() for one in exchanges), 0)
    yield told(f"{name}/streams-cut", outcomes(begun).get(CUT, 0))
    yield none_but(f"{name}/streams-without-their-end", begun, CUT, WHOLE)
    yield told(f"{name}/answered-nevertheless", sum(one.outcome == WHOLE and one.ended > at for one in others))
    yield told(f"{name}/refused", len(refused))
    yield at_most(f"{name}/refused-within", max((one.ended - at for one in refused), default=0), TOLD_WITHIN_S, "s")
    yield none_but(f"{name}/lost", others, WHOLE, REFUSED)


def _hung_when_idle(name: str, house: House, hang: Fault) -> Iterator[Figure]:
    """Strike it when it has nothing to do; some come before anybody has seen it."""
    struck, at = hang.strike(house.server), time.monotonic()
    newcomers = house.crowd.ask_all([words(number, stream=number % 2 == 0, max_tokens=20) for number in new_numbers(4)])
    yield from _figures_of_return(name, house, hang, at)
    wait(newcomers, WITHIN_S)
    yield none_but(f"{name}/newcomers-not-answered", newcomers, WHOLE)
    yield exactly(f"{name}/processes-left", sum(map(runs, struck)), 0)


def _fail_fast(plan: Plan) -> Iterator[Figure]:
    """A server that may not start its engine again ends with it, and everybody knows at once."""
    with open_house(plan, "--engine-restarts", "0") as house:
        family, files = house.server.family(), _shared_files(house.server)
        exchanges = _asked_by_all(house.crowd, plan)
        _kill(house.server)
        at = time.monotonic()
        unready = seconds_until(lambda: not house.probe.is_ready(), ENDED_WITHIN_S)
        yield at_most("kill/fail-fast/not-ready-within", unready, TOLD_WITHIN_S, "s")
        wait(exchanges, WITHIN_S)
        unfinished = [one for one in exchanges if one.outcome != WHOLE or one.ended > at + JUST_BEFORE_S]
        yield told("kill/fail-fast/unfinished", len(unfinished))
        yield none_but("kill/fail-fast/without-a-word", unfinished, CUT, REFUSED)
        yield at_most("kill/fail-fast/told-within", max(one.ended - at for one in unfinished), TOLD_WITHIN_S, "s")
        seconds_until(lambda: house.server.process.poll() is not None, ENDED_WITHIN_S)
        yield at_most("kill/fail-fast/ended-within", time.monotonic() - at, ENDED_WITHIN_S, "s")
        yield exactly("kill/fail-fast/failed", (house.server.process.poll() or 0) != 0, 1)
        seconds_until(lambda: not any(map(runs, family)), 1)
        yield exactly("kill/fail-fast/processes-left", sum(map(runs, family)), 0)
        yield exactly("kill/fail-fast/shared-memory-left", len(files & _all_shared_files()), 0, "files")


def _asked_by_all(crowd: Crowd, plan: Plan) -> list[Exchange]:
    """24 requests that are answered, in words and about pictures, streamed and whole, and 8 in their prefill.

    In the short form half as many.
    """
    makers, length = (words, about_picture), plan.size(500, 150)
    answering = crowd.ask_all(
        [
            makers[number // 2 % 2](number, stream=number % 2 == 0, max_tokens=length)
            for number in new_numbers(plan.size(WAITERS, WAITERS // 2))
        ]
    )
    await_begun([one for one in answering if one.streamed])
    waiting = new_numbers(plan.size(PREFILL, PREFILL // 2))
    prefill = crowd.ask_all([long_prompt(number, stream=number % 2 == 0) for number in waiting])
    time.sleep(0.1)
    return [*answering, *prefill]


def _run_through(house: House) -> None:
    """Let everything that is made lazily be made before anything is counted."""
    wait(house.crowd.ask_all([about_picture(number, stream=True, max_tokens=8) for number in new_numbers(8)]), WITHIN_S)
    house.probe.await_idle()


def _kill(server: Server) -> list[psutil.Process]:
    engine = server.named("VLLM::")
    for core in _core(engine):
        core.kill()
    return engine


def _stop_core(server: Server) -> list[psutil.Process]:
    engine = server.named("VLLM::")
    for core in _core(engine):
        core.suspend()
    return engine


def _stop_worker(server: Server) -> list[psutil.Process]:
    engine = server.named("VLLM::")
    for process in engine:
        if process not in _core(engine):
            process.suspend()
    return engine


def _core(engine: Sequence[psutil.Process]) -> list[psutil.Process]:
    """The process at the head of the engine's: the others are its children."""
    (core,) = (process for process in engine if "EngineCore" in " ".join(process.cmdline()))
    return [core]


def _shared_files(server: Server) -> set[str]:
    """The files of shared memory that the server's processes have in use."""
    found: set[str] = set()
    for process in server.family():
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            maps = Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8", errors="replace")
            found |= {line.split(maxsplit=5)[5] for line in maps.splitlines() if " /dev/shm/" in line}
    return found


def _all_shared_files() -> set[str]:
    return {f"/dev/shm/{name}" for name in os.listdir("/dev/shm")}


# ---- poison


def _poison() -> dict[str, Any]:
    return request("A word that kills.", stream=False, max_tokens=8, seed=POISON_SEED)


def _sent_once_more(house: House) -> Iterator[Figure]:
    house.probe.await_idle()
    restarts = _restarts(house)
    again = house.crowd.answer(_poison())
    yield exactly("poison/status-once-more", again.status, 422)
    yield at_most("poison/refused-once-more-within", again.ended - again.asked, 1, "s")
    yield exactly("poison/restarts-once-more", _restarts(house) - restarts, 0)
    yield exactly("poison/ready-thereafter", house.probe.is_ready(), 1)


def _restarts(house: House) -> float:
    return house.probe.metrics()["ain_engine_restarts_total"]
